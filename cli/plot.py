"""`dmft plot A ...`: a picture of results."""

from __future__ import annotations

import argparse
from pathlib import Path

from pydantic import ValidationError

from cli import remote
from cli.errors import CommandError
from dmft_figures import FORMATS, KINDS, NothingToDraw, Options, render
from dmft_schema.refusal import field_errors, in_one_line


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", nargs="+", help="ids of solves, or NPZ files")
    endings = ", ".join(f".{ending}" for ending in FORMATS)
    parser.add_argument("-o", "--output", type=Path, default=Path("dmft.png"), help=f"the file: {endings}")
    parser.add_argument("-k", "--kind", choices=list(KINDS), default="loss", help="what to draw (loss)")
    for name, field in Options.model_fields.items():
        parser.add_argument(f"--{name}", metavar=name.upper(), help=f"{field.description} ({field.default})")
    remote.add_server(parser)


def run(arguments: argparse.Namespace) -> None:
    output = arguments.output
    ending = output.suffix.removeprefix(".")
    if ending not in FORMATS:
        raise CommandError(f"{output}: the name must end in one of {', '.join(FORMATS)}")
    given = {name: getattr(arguments, name) for name in Options.model_fields}
    try:
        options = Options.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise CommandError(in_one_line(field_errors(error.errors()))) from None
    with remote.client(arguments) as client:
        results = remote.results(client, arguments.results)
    try:
        arrays = {name: result.arrays for name, result in results.items()}
        picture = render(arguments.kind, arrays, ending, options)
    except NothingToDraw as nothing:
        raise CommandError(str(nothing)) from None
    try:
        output.write_bytes(picture)
    except OSError as error:
        raise CommandError(f"cannot write {output}: {error.strerror or error}") from None
    print(f"wrote {output}")
