"""Pydantic's errors in a user's words: the places that the user wrote, without pydantic's vocabulary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from pydantic import ValidationError

from dmft_schema.job import FieldError, ProblemDetail

# Fields that hold one of several things: pydantic names the one it tried right after them.
_UNION_FIELDS = (["data"], ["method"], ["outputs", "kernel_times"])

MAX_ERRORS = 20
"""Errors that a refusal names; it counts the others."""

_LONGEST_NAME = 100
_LONGEST_MESSAGE = 500
_LONGEST_LINE = 2_000
_DEEPEST_PLACE = 24


def field_errors(errors: Iterable[Mapping[str, Any]]) -> list[FieldError]:
    """What is wrong where, from ValidationError.errors(): the first MAX_ERRORS, each cut to what is read."""
    return [
        FieldError(
            loc=_place(error["loc"]),
            msg=shortened(error["msg"].removeprefix("Value error, "), _LONGEST_MESSAGE),
        )
        for error in islice(errors, MAX_ERRORS)
    ]


def _place(loc: Sequence[str | int]) -> list[str | int]:
    place = list(loc[1:] if loc and loc[0] == "body" else loc)
    for field in _UNION_FIELDS:
        if len(place) > len(field) and place[: len(field)] == field:
            del place[len(field)]
    return [shortened(part, _LONGEST_NAME) if isinstance(part, str) else part for part in place][
        :_DEEPEST_PLACE
    ]


def shortened(text: str, longest: int = _LONGEST_LINE) -> str:
    """The text, with an ellipsis for what is beyond `longest` characters."""
    return text if len(text) <= longest else text[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"


def in_one_line(errors: Sequence[FieldError], count: int | None = None) -> str:
    """The errors as one line of text; `count` says how many there are, if not all are given."""
    line = "; ".join(f"{'.'.join(map(str, error.loc)) or 'request'}: {error.msg}" for error in errors)
    more = (count or 0) - len(errors)
    return shortened(line) + (f"; and {more} more" if more > 0 else "")


def problem_of(error: ValidationError) -> ProblemDetail:
    """What the API answers to a request with these errors."""
    return problem_with(field_errors(error.errors()), error.error_count())


def problem_with(errors: list[FieldError], count: int | None = None) -> ProblemDetail:
    """A refusal for these reasons; `count` says how many there are, if not all are given."""
    count = len(errors) if count is None else count
    return ProblemDetail(
        title="Unprocessable Content",
        status=422,
        code="invalid_request",
        detail=in_one_line(errors, count),
        errors=errors,
        error_count=count,
    )
