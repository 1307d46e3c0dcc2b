"""`dmft watch ID`: follow a solve to its end."""

from __future__ import annotations

import argparse

from cli import remote
from cli.errors import CommandError
from dmft_schema import JobStatus


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", help="of a solve; see dmft list")
    parser.add_argument("--json", action="store_true", help="print each event as a line of JSON")
    remote.add_server(parser)


def run(arguments: argparse.Namespace) -> None:
    with remote.client(arguments) as client:
        solve = client.get(arguments.id)
        if arguments.json:
            for event in solve.events():
                print(event.model_dump_json(), flush=True)
        else:
            solve.wait()
        job = solve.job()
    if job.status is not JobStatus.SUCCEEDED:
        why = f": {job.error.message} {job.error.advice}" if job.error else ""
        raise CommandError(f"{job.id} {job.status.value}{why}")
    if not arguments.json:
        loss = "" if job.progress.loss is None else f", loss {job.progress.loss:.6g}"
        print(f"{job.id} {job.status.value}{loss}")
