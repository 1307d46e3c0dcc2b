"""Pydantic's errors in a user's words: the places that the user wrote, without pydantic's vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from dmft_schema.job import FieldError, ProblemDetail

# Fields that hold one of several models: pydantic names the one it chose right after them.
_UNION_FIELDS = ("data", "method")


def field_errors(errors: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    """What is wrong where, from ValidationError.errors()."""
    return [
        FieldError(loc=_place(error["loc"]), msg=error["msg"].removeprefix("Value error, "))
        for error in errors
    ]


def _place(loc: Sequence[str | int]) -> list[str | int]:
    place = list(loc[1:] if loc and loc[0] == "body" else loc)
    if len(place) > 1 and place[0] in _UNION_FIELDS:
        del place[1]
    return place


def in_one_line(errors: Sequence[FieldError]) -> str:
    """The errors as one line of text."""
    return "; ".join(f"{'.'.join(map(str, error.loc)) or 'request'}: {error.msg}" for error in errors)


def problem_of(error: ValidationError) -> ProblemDetail:
    """What the API answers to a request with these errors."""
    errors = field_errors(error.errors())
    return ProblemDetail(
        title="Unprocessable Content",
        status=422,
        code="invalid_request",
        detail=in_one_line(errors),
        errors=errors,
    )
