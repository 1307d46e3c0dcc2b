"""`dmft list`: your solves, newest first."""

from __future__ import annotations

import argparse
from itertools import islice

from cli import remote, table
from dmft_schema import Job, JobStatus


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--status", choices=[status.value for status in JobStatus])
    parser.add_argument("--tag", help="only those with this tag")
    parser.add_argument("--owner", help="of this user (admins only; * for everybody)")
    parser.add_argument("-n", "--limit", type=int, default=20, help="at most so many (20)")
    remote.add_json(parser)
    remote.add_server(parser)


def run(arguments: argparse.Namespace) -> None:
    with remote.client(arguments) as client:
        chosen = client.list(status=arguments.status, tag=arguments.tag, owner=arguments.owner)
        jobs = [solve.known for solve in islice(chosen, max(arguments.limit, 0))]
    if arguments.json:
        remote.print_json([job.model_dump(mode="json") for job in jobs])
    else:
        print(table.lines(HEADER, [row(job) for job in jobs]))


HEADER = ["id", "status", "method", "name", "loss", "created", "tags"]


def row(job: Job) -> list[str]:
    """What the list says of one solve."""
    loss = job.progress.loss
    return [
        job.id,
        f"{job.progress.fraction:.0%}" if job.status is JobStatus.RUNNING else job.status.value,
        job.request.method.name,
        job.name or "",
        "" if loss is None else f"{loss:.4g}",
        f"{job.created_at.astimezone():%Y-%m-%d %H:%M}",
        " ".join(job.tags),
    ]
