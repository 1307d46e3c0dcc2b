"""Requests and datasets with large arrays, read and written a point at a time.

As Python's lists of floats an array takes four times its size. Here each point becomes numbers, and numbers
become text, by themselves, so that a body of 60 MB takes a few times that and no more.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from pydantic_core import from_json, to_json

from dmft_schema.base import fields_of

FloatArray = NDArray[np.float64]

_ARRAY = re.compile(
    rb'"(?:kernel|cross_kernel|test_kernel|inputs|test_inputs|targets|test_targets)"\s*:\s*'
    rb'(\[[^"{}]*\])(?=\s*[,}])'
)
_AXES = re.compile(rb"(?:\[\s*+)++")
_SEPARATOR = re.compile(rb"\s*+,\s*+")
_END = re.compile(rb"\s*+\]")
_PLACEHOLDER = "array number {}"

MAX_BESIDE = 4 * 2**20
"""Bytes of a body beside the arrays of its data: lists of steps are the longest that belong there."""

MAX_LISTS = 20_000
"""Lists and objects beside the arrays, or of arrays that are read as lists since they are none."""

MAX_STRINGS = 10_000
"""Strings, names of fields included; a request has a hundred, and two for each block."""

_LONGEST_POINT = 2**20
_MOST_AXES = 4


def _nested(axes: int) -> bytes:
    """A pattern of lists of lists, `axes` deep."""
    if axes == 1:
        return rb"\[[^\[\]]*+\]"
    inner = _nested(axes - 1)
    return rb"\[\s*+" + inner + rb"(?:\s*+,\s*+" + inner + rb")*+\s*+\]"


_POINT = {axes: re.compile(_nested(axes - 1)) for axes in range(2, _MOST_AXES + 1)}
"""Axes of an array -> what stands for one of its points."""


class TooMuchBeside(ValueError):
    """Most of a large body is something else than arrays of numbers."""


def read(body: bytes) -> Any:
    """What a body of JSON says; nested lists of numbers in its data come as arrays, if they make some.

    Raises:
        TooMuchBeside: it would take far more memory than data that may be solved.
        ValueError: it is not JSON.
    """
    arrays: dict[str, FloatArray] = {}
    pieces: list[bytes] = []
    end = 0
    for found in _ARRAY.finditer(body):
        array = _array(body, *found.span(1))
        if array is not None:
            name = _PLACEHOLDER.format(len(arrays))
            arrays[name] = array
            pieces += [body[end : found.start(1)], json.dumps(name).encode()]
            end = found.end(1)
    rest = b"".join([*pieces, body[end:]])
    _check_shape(rest)
    document = from_json(rest)
    data = document.get("data") if isinstance(document, dict) else None
    if isinstance(data, dict):
        for field, value in data.items():
            if isinstance(value, str) and value in arrays:
                data[field] = arrays.pop(value)
    if not arrays:
        return document
    # Where none belong, whoever validates shall see them as they came.
    if len(body) > MAX_BESIDE:
        raise TooMuchBeside("the body holds large arrays where none belong: they are fields of data")
    _check_shape(body)
    return from_json(body)


def _check_shape(text: bytes) -> None:
    # Objects cost Python twenty times their bytes: counted before any is made.
    for what, count, limit in (
        ("bytes", len(text), MAX_BESIDE),
        ("lists and objects", text.count(b"[") + text.count(b"{"), MAX_LISTS),
        ("strings", text.count(b'"') // 2, MAX_STRINGS),
    ):
        if count > limit:
            raise TooMuchBeside(
                f"the body holds {count} {what} beside the arrays of data (limit: {limit}); an array is a "
                "list of points, all of one shape, of numbers only"
            )


def _array(body: bytes, start: int, end: int) -> FloatArray | None:
    """The points, all of one shape, in body[start:end]; None if that is anything else."""
    opening = _AXES.match(body, start, end)
    axes = opening[0].count(b"[") if opening else 0
    if axes not in _POINT:
        return None
    # As many as separators between points, at most: so much text has so many numbers.
    points: list[FloatArray] = []
    pattern, place = _POINT[axes], start + 1
    while True:
        text = pattern.search(body, place, end)
        if text is None or body[place : text.start()].strip() or len(text[0]) > _LONGEST_POINT:
            return None
        point = _numbers(text[0], axes - 1)
        if point is None or (points and point.shape != points[0].shape):
            return None
        points.append(point)
        separator = _SEPARATOR.match(body, text.end(), end)
        if separator is None:
            closing = _END.match(body, text.end(), end)
            return np.stack(points) if closing and closing.end() == end else None
        place = separator.end()


def _numbers(text: bytes, axes: int) -> FloatArray | None:
    """One point, [D] or [.., D]; None if it is anything else."""
    nested = from_json(text)
    shape: list[int] = []
    flat = nested
    for axis in range(axes):
        shape.append(len(flat) if not axis else len(flat) // math.prod(shape))
        if axis + 1 < axes:
            if len(set(map(len, flat))) != 1:
                return None
            flat = list(chain.from_iterable(flat))
    if not set(map(type, flat)) <= {int, float}:
        return None
    try:
        return np.array(flat, dtype=np.float64).reshape(shape)
    except OverflowError:  # an integer beyond float64
        return None


def write(model: BaseModel) -> bytes:
    """What model.model_dump_json(exclude_none=False) gives, encoded."""
    return b"".join(_written(model, exclude_none=False))


def write_data(data: BaseModel) -> bytes:
    """What data.model_dump_json(exclude_none=True) gives, encoded."""
    return b"".join(_written(data, exclude_none=True))


def _written(model: BaseModel, *, exclude_none: bool) -> Iterator[bytes]:
    yield b"{"
    separator = b""
    for name, value in fields_of(model):
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
        content = dict(fields_of(content))
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
            yield _dumped(row.tolist())
        yield b"]"
    elif isinstance(content, list) and any(isinstance(entry, BaseModel) for entry in content):
        yield b"["
        for index, entry in enumerate(content):
            yield b"," if index else b""
            yield from canonical(entry)
        yield b"]"
    else:
        yield _dumped(content.tolist() if isinstance(content, np.ndarray) else content)


def _dumped(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
