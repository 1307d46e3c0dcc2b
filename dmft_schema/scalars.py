"""Scalars as JSON means them: true is no number, "5" is none either, and 1 is not true.

Left to itself pydantic converts between them, so that `"steps": true` would be one step.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np


class Foreign:
    """Stands for a scalar of the wrong kind, so that the field says itself what it wants."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return repr(self.value)


def without_conversions(value: Any, annotation: Any) -> Any:
    """The value of a field, each scalar in it `Foreign` that is of no kind that the annotation names."""
    if isinstance(value, list | tuple):
        entries = _entries(annotation)
        if entries is None:
            return value
        kinds = _kinds(entries)
        return [_checked(entry, kinds) for entry in value]
    return _checked(value, _kinds(annotation))


def _checked(value: Any, kinds: frozenset[type]) -> Any:
    numbers = bool(kinds & {int, float})
    if isinstance(value, bool | np.bool_):
        wrong = numbers and bool not in kinds
    elif isinstance(value, str | bytes):
        wrong = (numbers or bool in kinds) and str not in kinds
    elif isinstance(value, int | float | np.number):
        wrong = bool in kinds and not numbers
    else:
        wrong = False
    return Foreign(value) if wrong else value


def _members(annotation: Any) -> Iterator[Any]:
    """The alternatives of an annotation, without what is attached to it."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _members(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


def _kinds(annotation: Any) -> frozenset[type]:
    kinds: set[type] = set()
    for member in _members(annotation):
        if get_origin(member) is Literal:
            kinds |= {type(choice) for choice in get_args(member)}
        elif isinstance(member, type):
            kinds.add(member)
    return frozenset(kinds)


def _entries(annotation: Any) -> Any:
    """What the entries of a list are; None if the annotation takes no list."""
    return next((get_args(m)[0] for m in _members(annotation) if get_origin(m) is list), None)
