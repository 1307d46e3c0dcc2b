"""`dmft demo`: the infinite-width limit beside its approximation and real networks, on real images."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cli import options, table
from cli.errors import CommandError
from cli.server import LocalServer
from dmft_client import Client, ClientError, Result
from dmft_client.plots import compare_figure
from dmft_schema.observables import alignment

DEPTH = 3
PROBLEM: dict[str, Any] = {
    "dataset": "digits",
    "classes": [0, 1],
    "points": 20,
    "depth": DEPTH,
    "activation": "tanh",
    "gamma0": 1.0,
    "learning_rate": 0.1,
    "steps": 100,
}
METHODS: dict[str, dict[str, Any]] = {
    "dmft": {"method": "dmft"},
    "static_ntk": {"method": "static_ntk"},
    "finite_width": {"method": "finite_width", "width": 500, "ensemble": 4},
}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder (demo-output)")


def run(arguments: argparse.Namespace) -> None:
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    print("Two classes of the digits images (P = 20), tanh, depth 3, gamma0 = 1, 100 steps.")
    try:
        with _server() as client:
            results = _solve(client)
    except ClientError as error:
        raise CommandError(str(error)) from None
    for label, result in results.items():
        result.save(output / f"{label}.npz")
    figure = output / "demo.png"
    compare_figure(results, layer=DEPTH).savefig(figure, dpi=120)
    print()
    print(table.of_results(results))
    print()
    print(_alignments(results))
    truncation = results["dmft"].loss_truncation_error
    assert truncation is not None
    print(f"\n± is one standard error. dmft's other error, of truncation, is at most {truncation.max():.1g}.")
    print(f"Wrote {figure} and {', '.join(f'{label}.npz' for label in results)} beside it.")
    print("`dmft serve` keeps a server running, with a page at http://127.0.0.1:8000/.")


@contextmanager
def _server() -> Iterator[Client]:
    """A client of a server of the demo's own, on a free port and in a folder that is removed again."""
    with tempfile.TemporaryDirectory(prefix="dmft-demo-") as folder:
        settings = options.load(data_dir=Path(folder), host="127.0.0.1", port=0, redis_url="")
        with LocalServer(settings) as server:
            print(f"Server on {server.url}")
            with Client(server.url, server.key_file.read_text().strip()) as client:
                yield client


def _solve(client: Client) -> dict[str, Result]:
    solves = {label: client.solve(**PROBLEM, **choices, name=label) for label, choices in METHODS.items()}
    return {label: solve.wait(progress=True).result() for label, solve in solves.items()}


def _alignments(results: dict[str, Result]) -> str:
    """Of each method's final kernels with the limit's, layer by layer."""
    limit, depths = results["dmft"], range(1, DEPTH + 1)
    rows = []
    for label, result in results.items():
        if result is not limit:
            layers = [alignment(result.phi(depth), limit.phi(depth)) for depth in depths]
            rows.append([label, *(f"{a:.4f}" for a in layers), f"{alignment(result.ntk(), limit.ntk()):.4f}"])
    header = ["final kernels against dmft's", *(f"Phi^{depth}" for depth in depths), "NTK"]
    return table.lines(header, rows)
