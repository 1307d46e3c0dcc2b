"""`dmft plot A ...`: loss curves, and a layer's final kernels, as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.figure import Figure

from cli import remote
from cli.errors import CommandError
from dmft_client.plots import compare_figure, plot_loss

ENDINGS = (".png", ".svg", ".pdf")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", nargs="+", help="ids of solves, or NPZ files")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("dmft.png"), help="a .png, .svg or .pdf file"
    )
    parser.add_argument("--layer", type=int, help="below the curves, the final Phi of this layer")
    remote.add_server(parser)


def run(arguments: argparse.Namespace) -> None:
    output = arguments.output
    if output.suffix not in ENDINGS:
        raise CommandError(f"{output}: the name must end in one of {', '.join(ENDINGS)}")
    with remote.client(arguments) as client:
        results = remote.results(client, arguments.results)
    if arguments.layer is None:
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        plot_loss(figure.add_subplot(), results)
    else:
        try:
            figure = compare_figure(results, arguments.layer)
        except KeyError as error:
            raise CommandError(str(error.args[0])) from None
    try:
        figure.savefig(output, dpi=150)
    except OSError as error:
        raise CommandError(f"cannot write {output}: {error.strerror or error}") from None
    print(f"wrote {output}")
