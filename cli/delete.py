"""`dmft delete ID ...`: forget finished solves and their results."""

from __future__ import annotations

import argparse

from cli import remote


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", nargs="+", metavar="id", help="of a finished solve; see dmft list")
    remote.add_server(parser)


def run(arguments: argparse.Namespace) -> None:
    with remote.client(arguments) as client:
        for solve_id in arguments.ids:
            client.get(solve_id).delete()
            print(f"{solve_id} deleted")
