"""What the commands share that talk to a server as its users do."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cli.errors import CommandError
from dmft_client import Client, ClientError, Result


def add_server(parser: argparse.ArgumentParser) -> None:
    """Options that say which server, and who asks."""
    parser.add_argument("--url", help="the server (the local one; DMFT_URL)")
    parser.add_argument("--api-key", help="its key (the local server's own; DMFT_API_KEY)")


def add_json(parser: argparse.ArgumentParser) -> None:
    """The option to print for programs."""
    parser.add_argument("--json", action="store_true", help="print JSON")


@contextmanager
def client(arguments: argparse.Namespace) -> Iterator[Client]:
    """The client for a command; what it raises ends the command with its message."""
    try:
        with Client(arguments.url, arguments.api_key) as opened:
            yield opened
    except ClientError as error:
        raise CommandError(str(error)) from None


def print_json(value: BaseModel | list[Any] | dict[str, Any]) -> None:
    """One JSON document on standard output."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    print(json.dumps(plain, indent=2))


def results(client: Client, names: list[str]) -> dict[str, Result]:
    """Results by what the user called them: ids of solves, or files that download has written.

    Raises:
        ClientError: there is no such result.
    """
    found = {}
    for name in names:
        path = Path(name)
        if path.suffix == ".npz" or path.exists():
            try:
                found[path.stem] = Result.load(path)
            except OSError as error:
                raise CommandError(f"cannot read {name}: {error.strerror}") from None
        else:
            solve = client.get(name)
            found[solve.job().name or name] = solve.result(partial=True)
    if len(found) < len(names):
        raise CommandError(
            "two of these have the same name; rename a file, or give ids of solves with other names"
        )
    return found
