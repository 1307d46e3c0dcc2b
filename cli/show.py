"""`dmft show ID`: everything the server says of one solve."""

from __future__ import annotations

import argparse
import json
from datetime import datetime

from cli import remote
from dmft_schema import Job


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", help="of a solve; see dmft list")
    remote.add_json(parser)
    remote.add_server(parser)


def run(arguments: argparse.Namespace) -> None:
    with remote.client(arguments) as client:
        job = client.get(arguments.id).known
    if arguments.json:
        remote.print_json(job)
    else:
        print("\n".join(f"{name:<10} {text}" for name, text in _lines(job) if text))


def _lines(job: Job) -> list[tuple[str, str]]:
    request, progress = job.request.model_dump(mode="json"), job.progress
    loss = "" if progress.loss is None else f", loss {progress.loss:.6g}"
    lines = [
        ("id", job.id),
        ("name", job.name or ""),
        ("tags", " ".join(job.tags)),
        ("status", job.status.value + (f": {job.waiting_reason}" if job.waiting_reason else "")),
        ("progress", f"step {progress.step} of {progress.steps}{loss} {progress.message}".rstrip()),
    ]
    lines += [(name, f"{when.astimezone():%Y-%m-%d %H:%M:%S}" if when else "") for name, when in _times(job)]
    for section in ("data", "network", "training", "method", "outputs"):
        options = {key: value for key, value in request.get(section, {}).items() if value is not None}
        lines.append((section, ", ".join(f"{key} {_short(value)}" for key, value in options.items())))
    if job.error is not None:
        lines += [("error", f"{job.error.code}: {job.error.message}"), ("advice", job.error.advice)]
    return lines


def _times(job: Job) -> list[tuple[str, datetime | None]]:
    return [("created", job.created_at), ("started", job.started_at), ("finished", job.finished_at)]


def _short(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
