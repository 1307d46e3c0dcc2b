"""`dmft compare A B ...`: results in one table, and how far each is from the first."""

from __future__ import annotations

import argparse

import numpy as np

from cli import remote, table
from cli.errors import CommandError
from dmft_client import Comparison, compare


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", nargs="+", help="ids of solves, or NPZ files")
    remote.add_server(parser)


def run(arguments: argparse.Namespace) -> None:
    if len(arguments.results) < 2:
        raise CommandError("give two or more results")
    with remote.client(arguments) as client:
        results = remote.results(client, arguments.results)
    print(table.of_results(results))
    (first, judge), *others = results.items()
    rows = []
    for name, result in others:
        try:
            rows.append([name, *_cells(compare(result, judge))])
        except ValueError as error:
            rows.append([name, str(error), "", "", "", ""])
    print()
    header = [f"beside {first}", "largest loss difference", "in standard errors", "alignment phi", "g", "ntk"]
    print(table.lines(header, rows))


def _cells(comparison: Comparison) -> list[str]:
    where = int(np.abs(comparison.loss_difference).argmax())
    difference, error = comparison.loss_difference[where], comparison.loss_standard_error
    known = error is not None and error[where] > 0
    return [
        f"{difference:+.3g}",
        f"{abs(difference) / error[where]:.1f}" if known and error is not None else "",
        " ".join(f"{value:.4f}" for value in comparison.phi_alignment),
        " ".join(f"{value:.4f}" for value in comparison.g_alignment),
        "" if comparison.ntk_alignment is None else f"{comparison.ntk_alignment:.4f}",
    ]
