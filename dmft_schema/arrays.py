"""Whatever holds numbers, as one finite float64 array: lists, numpy, pandas, torch, JAX and the like.

Real numbers only, and all that the user sees: what a mask hides, what is missing, what is no number
(booleans, strings, dates, complex numbers, objects) is refused with its place, never converted on a guess.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_LARGEST = int(np.finfo(np.float64).max)
_SHAPES = {
    1: "a list of numbers",
    2: "a list of rows",
    3: "a list of sequences [times, D]",
    4: "a list of images [H, W, C]",
}
_KINDS = {
    "b": "booleans",
    "c": "complex numbers",
    "M": "dates",
    "m": "time differences",
    "S": "bytes",
    "U": "text",
    "O": "objects",
    "V": "records",
}


def finite_array(value: Any, dimensions: tuple[int, ...]) -> FloatArray:
    """A read-only float64 copy of `value`.

    Args:
        value: nested lists or tuples of numbers or arrays; or an array of numpy, pandas, torch, or any other
            library that converts to numpy. Gradients, devices and narrower floats are left behind.
        dimensions: how many axes it may have.

    Raises:
        ValueError: it is no such thing; the message names the entry at fault.
    """
    words = _Words(" or ".join(_SHAPES[d] for d in dimensions), max(dimensions))
    if isinstance(value, str | bytes | bytearray | dict | set | frozenset) or value is None:
        raise ValueError(f"must be {words}")
    array = _numbers(value, words, ())
    if array.ndim not in dimensions:
        got = f"an array of shape {list(array.shape)}" if array.ndim else "a single value"
        raise ValueError(f"must be {words}; got {got}")
    if array.size == 0:
        raise ValueError("must not be empty")
    with np.errstate(over="ignore"):  # a longer float than float64 becomes infinite, and is refused as that
        array = array.astype(np.float64)
    if not np.isfinite(array).all():
        where = np.argwhere(~np.isfinite(array))[0]
        raise ValueError(f"must be finite; {_entry(where)} is {array[tuple(where)]:g}")
    array.setflags(write=False)
    return array


class _Words(str):
    """What is wanted, in words, and how many axes that may have."""

    def __new__(cls, words: str, deepest: int) -> Self:
        made = super().__new__(cls, words)
        made.deepest = deepest
        return made

    deepest: int


def _entry(place: Any) -> str:
    return f"entry {[int(i) for i in place]}" if len(place) else "it"


def _numbers(value: Any, words: _Words, place: tuple[int, ...]) -> NDArray:
    """As an array of integers or floats; `place` says where in the whole it stands."""
    if isinstance(value, list | tuple):
        return _of_list(value, words, place)
    if isinstance(value, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(value)
        if mask.any():
            where = (*place, *np.argwhere(mask)[0])
            raise ValueError(f"must have every entry; {_entry(where)} is masked: fill it or leave it out")
        value = value.data
    elif isinstance(value, np.ndarray | np.generic | int | float):
        pass
    elif hasattr(value, "isna") and hasattr(value, "to_numpy"):
        value = _of_pandas(value, words, place)
    else:
        value = _of_library(value, words, place)
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"must be {words} that holds numbers only; {_culprit(array, place)}")
    return array


def _culprit(array: NDArray, place: tuple[int, ...]) -> str:
    if array.dtype.kind == "O":
        for index in np.ndindex(array.shape):
            entry = array[index]
            if isinstance(entry, bool | np.bool_) or not isinstance(entry, int | float | np.number):
                return f"{_entry((*place, *index))} is {_described(entry)}"
    kind = _KINDS.get(array.dtype.kind, "other things")
    return f"{_entry(place) if place else 'this array'} has dtype {array.dtype} ({kind})"


def _described(entry: Any) -> str:
    if entry is None:
        return "missing (None)"
    text = repr(entry)
    return f"{text if len(text) <= 40 else text[:37] + '...'} ({type(entry).__name__})"


def _of_list(value: list[Any] | tuple[Any, ...], words: _Words, place: tuple[int, ...]) -> NDArray:
    if set(map(type, value)) <= {int, float}:
        try:
            return np.array(value, dtype=np.float64)
        except OverflowError:
            index = next(i for i, entry in enumerate(value) if abs(entry) > _LARGEST)
            raise ValueError(f"must be finite; {_entry((*place, index))} is beyond float64") from None
    if len(place) >= words.deepest:
        raise ValueError(f"must be {words}; {_entry(place)} is a list")
    parts = []
    for index, part in enumerate(value):
        here = (*place, index)
        if part is None or isinstance(part, bool | np.bool_ | str | bytes | dict):
            raise ValueError(f"must be {words} that holds numbers only; {_entry(here)} is {_described(part)}")
        parts.append(_numbers(part, words, here))
    for index, part in enumerate(parts):
        if part.shape != parts[0].shape:
            raise ValueError(
                f"must be {words}, all rows of one length; {_entry((*place, 0))} has shape "
                f"{list(parts[0].shape)}, {_entry((*place, index))} {list(part.shape)}"
            )
    return np.stack(parts)


def _of_pandas(value: Any, words: _Words, place: tuple[int, ...]) -> NDArray:
    dtypes = getattr(value, "dtypes", None)
    columns = [(None, value.dtype)] if value.ndim == 1 else list(dtypes.items()) if dtypes is not None else []
    missing = np.argwhere(np.asarray(value.isna()))
    if len(missing):
        raise ValueError(f"must have every entry; {_entry((*place, *missing[0]))} is missing (NA)")
    for column, dtype in columns:
        if getattr(dtype, "kind", "O") not in "iuf":
            which = "it" if column is None else f"column {column!r}"
            raise ValueError(f"must be {words} that holds numbers only; {which} has dtype {dtype}")
    array: NDArray = value.to_numpy(dtype=np.float64)
    return array


def _of_library(value: Any, words: _Words, place: tuple[int, ...]) -> NDArray:
    """Arrays of other libraries; whatever they raise on the way is a refusal."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    try:
        if hasattr(value, "detach") and hasattr(value, "cpu"):  # torch
            value = value.detach().cpu()
            if getattr(value, "is_sparse", False):
                value = value.to_dense()
            # numpy has no bfloat16, nor float8; what is complex stays so, to be refused.
            value = (value.double() if value.is_floating_point() else value.resolve_conj()).numpy()
        if hasattr(value, "filled") and hasattr(value, "mask"):
            raise TypeError("it is masked")
        array = np.asarray(value)
        if array.dtype.kind == "V" and array.dtype.names is None:  # bfloat16 of JAX (ml_dtypes)
            array = array.astype(np.float64)
    except MemoryError:
        raise
    except Exception as error:
        where = f"; {_entry(place)}" if place else ""
        raise ValueError(f"must be {words}{where}: a {kind} does not convert to numbers ({error})") from None
    if array.dtype == object and array.ndim == 0:
        what = f"{_entry(place)} is" if place else "got"
        raise ValueError(f"must be {words} that holds numbers only; {what} a {kind}")
    return array
