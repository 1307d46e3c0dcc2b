"""Requests and datasets with large arrays, read and written a row at a time.

As Python's lists of floats an array takes four times its size. Here each row becomes numbers, and numbers
become text, by themselves, so that a body of 60 MB takes a few times that and no more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from pydantic_core import from_json, to_json

FloatArray = NDArray[np.float64]

_ARRAY = re.compile(
    rb'"(?:kernel|cross_kernel|test_kernel|inputs|test_inputs|targets|test_targets)"\s*:\s*'
    rb'(\[[^"{}]*\])(?=\s*[,}])'
)
_ROW = re.compile(rb"\[([^\[\]]*)\]")
_ROWS = re.compile(rb"\[\s*\[[^\[\]]*\](?:\s*,\s*\[[^\[\]]*\])*\s*\]")
_PLACEHOLDER = "array number {}"

MAX_BESIDE = 4 * 2**20
"""Bytes of a body beside the arrays of its data: lists of steps are the longest that belong there."""

_LONGEST_ROW = 2**20


class TooMuchBeside(ValueError):
    """Most of a large body is something else than rows of numbers."""


def read(body: bytes) -> Any:
    """What a body of JSON says; lists of rows of numbers in its data come as arrays [rows, columns].

    Raises:
        TooMuchBeside: it would take far more memory than data that may be solved.
        ValueError: it is not JSON.
    """
    arrays: dict[str, FloatArray] = {}
    pieces: list[bytes] = []
    end = 0
    for found in _ARRAY.finditer(body):
        rows = _rows(body, *found.span(1))
        if rows is not None:
            name = _PLACEHOLDER.format(len(arrays))
            arrays[name] = rows
            pieces += [body[end : found.start(1)], json.dumps(name).encode()]
            end = found.end(1)
    beside = sum(map(len, pieces)) + len(body) - end
    if beside > MAX_BESIDE:
        raise TooMuchBeside(
            f"the body holds {beside} bytes beside rows of numbers in data (limit: {MAX_BESIDE}); arrays are "
            "lists of rows, all of one length, of numbers only"
        )
    document = from_json(b"".join([*pieces, body[end:]]))
    data = document.get("data") if isinstance(document, dict) else None
    if isinstance(data, dict):
        for field, value in data.items():
            if isinstance(value, str) and value in arrays:
                data[field] = arrays.pop(value)
    if arrays and len(body) > MAX_BESIDE:
        raise TooMuchBeside("the body holds large arrays where none belong: they are fields of data")
    if arrays:  # whoever validates shall see them where they came
        return from_json(body)
    return document


def _rows(body: bytes, start: int, end: int) -> FloatArray | None:
    """The rows of numbers in body[start:end]; None if that is anything else, rows of two lengths included."""
    if not _ROWS.fullmatch(body, start, end):
        return None
    rows: FloatArray | None = None
    for index, row in enumerate(_ROW.finditer(body, start, end)):
        if row.end() - row.start() > _LONGEST_ROW:
            return None
        numbers = from_json(row[0])
        if not set(map(type, numbers)) <= {int, float}:
            return None
        if rows is None:
            rows = np.empty((body.count(b"[", start, end) - 1, len(numbers)))
        if len(numbers) != rows.shape[1]:
            return None
        try:
            rows[index] = numbers
        except OverflowError:  # an integer beyond float64
            return None
    return rows


def write(model: BaseModel) -> bytes:
    """What model.model_dump_json(exclude_none=False) gives, encoded."""
    return b"".join(_written(model, exclude_none=False))


def write_data(data: BaseModel) -> bytes:
    """What data.model_dump_json(exclude_none=True) gives, encoded."""
    return b"".join(_written(data, exclude_none=True))


def _written(model: BaseModel, *, exclude_none: bool) -> Iterator[bytes]:
    yield b"{"
    separator = b""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if value is None and exclude_none:
            continue
        yield separator + to_json(name) + b":"
        separator = b","
        if isinstance(value, np.ndarray):
            yield from _array_text(value)
        elif isinstance(value, BaseModel):
            yield from _written(value, exclude_none=exclude_none)
        else:
            yield to_json(value)
    yield b"}"


def _array_text(array: NDArray[Any]) -> Iterator[bytes]:
    if array.ndim == 1:
        yield to_json(array.tolist())
        return
    yield b"["
    for index, row in enumerate(array):
        yield (b"," if index else b"") + to_json(row.tolist())
    yield b"]"


def canonical(content: Any) -> Iterator[bytes]:
    """json.dumps(content, sort_keys=True, separators=(",", ":")) in pieces; models and arrays as JSON has
    them."""
    if isinstance(content, BaseModel):
        content = {name: getattr(content, name) for name in type(content).model_fields}
    if isinstance(content, dict):
        yield b"{"
        for index, name in enumerate(sorted(content)):
            yield (b"," if index else b"") + json.dumps(name).encode() + b":"
            yield from canonical(content[name])
        yield b"}"
    elif isinstance(content, np.ndarray) and content.ndim > 1:
        yield b"["
        for index, row in enumerate(content):
            yield b"," if index else b""
            yield from canonical(row)
        yield b"]"
    else:
        value = content.tolist() if isinstance(content, np.ndarray) else content
        yield json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
