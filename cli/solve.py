"""`dmft solve`: one request, from a file or from options; the result as a table and an NPZ."""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cli import remote, table
from cli.errors import CommandError
from dmft_client import InvalidRequest
from dmft_client.arguments import place
from dmft_schema import SolveRequest
from dmft_schema.refusal import problem_of


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", nargs="?", help="a SolveRequest as JSON, TOML or YAML; - reads JSON from standard input"
    )
    parser.add_argument(
        "-s",
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="a field by its place (network.gamma0=0.5) or its name in the client (gamma0=0.5)",
    )
    parser.add_argument("-o", "--output", type=Path, help="where to write the NPZ (<solve id>.npz)")
    parser.add_argument("--detach", action="store_true", help="print the solve's id and do not wait")
    remote.add_server(parser)


def run(arguments: argparse.Namespace) -> None:
    with remote.client(arguments) as client:
        request = _request(arguments.file, arguments.set)
        solve = client.solve(request)
        if arguments.detach:
            print(solve.id)
            return
        print(f"solve {solve.id}", file=sys.stderr)
        result = solve.wait().result()
    output = arguments.output or Path(f"{solve.id}.npz")
    result.save(output)
    print(table.of_results({request.method.name: result}))
    print(f"wrote {output}")


def _request(file: str | None, changes: list[str]) -> SolveRequest:
    if file is None and not changes:
        raise CommandError("give a file, or fields with --set: dmft solve -s dataset=digits -s gamma0=1")
    document = {} if file is None else _document(file)
    for change in changes:
        _set(document, change)
    try:
        return SolveRequest.model_validate(document)
    except ValidationError as error:
        raise InvalidRequest(problem_of(error)) from None


def _document(file: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise CommandError(f"{file} is not text in UTF-8: {error}") from None
    kind, read = _FORMATS.get(Path(file).suffix, ("JSON", json.loads))
    try:
        document = read(text)
    except ValueError as error:
        raise CommandError(f"{file} is not {kind}: {error}") from None
    if not isinstance(document, dict):
        raise CommandError(f"{file} holds a {type(document).__name__}, not the fields of a request")
    return document


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ModuleNotFoundError:
        raise CommandError(
            "to read YAML, `pip install pyyaml`; or write the request as JSON or TOML"
        ) from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


_FORMATS: dict[str, tuple[str, Callable[[str], Any]]] = {
    ".toml": ("TOML", tomllib.loads),
    ".yaml": ("YAML", _yaml),
    ".yml": ("YAML", _yaml),
}


def _set(document: dict[str, Any], change: str) -> None:
    """Put one FIELD=VALUE into a request; a value that is no JSON is text.

    Raises:
        CommandError: there is no such field.
    """
    field, equals, text = change.partition("=")
    if not equals:
        raise CommandError(f"--set {change}: write it as FIELD=VALUE")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    try:
        *sections, last = field.split(".") if "." in field else place(field)
    except TypeError as error:
        raise CommandError(f"--set {change}: {error}") from None
    for section in sections:
        document = document.setdefault(section, {})
        if not isinstance(document, dict):
            raise CommandError(f"--set {change}: {section} has no fields of its own")
    document[last] = value
