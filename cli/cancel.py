"""`dmft cancel ID ...`: stop solves; a running one keeps the trajectory that it had reached."""

from __future__ import annotations

import argparse

from cli import remote


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", nargs="+", metavar="id", help="of a solve; see dmft list")
    remote.add_server(parser)


def run(arguments: argparse.Namespace) -> None:
    with remote.client(arguments) as client:
        for solve_id in arguments.ids:
            job = client.get(solve_id).cancel()
            print(f"{job.id} {'stopping' if not job.status.final else job.status.value}")
