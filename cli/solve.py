"""`dmft solve FILE.json`: one request from a file, the result as a table and an NPZ."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from pydantic import ValidationError

from cli import table
from cli.errors import CommandError
from dmft_client import Client, ClientError, InvalidRequest
from dmft_schema import SolveRequest
from dmft_schema.refusal import problem_of


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="a SolveRequest as JSON; - reads standard input")
    parser.add_argument("-o", "--output", type=Path, help="where to write the NPZ (<solve id>.npz)")
    parser.add_argument("--url", help="the server (the local one; DMFT_URL)")
    parser.add_argument("--api-key", help="its key (the local server's own; DMFT_API_KEY)")


def run(arguments: argparse.Namespace) -> None:
    try:
        request = _request(arguments.file)
        with Client(arguments.url, arguments.api_key) as client:
            solve = client.solve(request)
            print(f"solve {solve.id}", file=sys.stderr)
            result = solve.wait().result()
    except ClientError as error:
        raise CommandError(str(error)) from None
    output = arguments.output or Path(f"{solve.id}.npz")
    result.save(output)
    print(table.of_results({request.method.name: result}))
    print(f"wrote {output}")


def _request(file: str) -> SolveRequest:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
        return SolveRequest.model_validate(json.loads(text))
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise CommandError(f"{file} is not JSON: {error}") from None
    except ValidationError as error:
        raise InvalidRequest(problem_of(error)) from None
