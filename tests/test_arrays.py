"""Arrays of every library that users have them in: taken as what they show, or refused with a reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dmft_client import Client, InvalidRequest
from dmft_schema.arrays import finite_array


class Foreign:
    """As arrays of JAX and others are to numpy: they convert, and that is all."""

    def __init__(self, array: Any) -> None:
        self._array = np.asarray(array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._array if dtype is None else self._array.astype(dtype)


class Elsewhere(Foreign):
    """As an array on a device that numpy cannot reach."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise RuntimeError("implicit conversion is not allowed")


WAYS = {
    "lists": lambda a: a.tolist(),
    "tuples": lambda a: tuple(map(tuple, a.tolist())),
    "rows of arrays": list,
    "float32": lambda a: a.astype(np.float32),
    "transposed": lambda a: np.asfortranarray(a),
    "unmasked": np.ma.masked_array,
    "foreign": Foreign,
    "rows of foreign": lambda a: [Foreign(row) for row in a],
    "frame": pd.DataFrame,
    "nullable frame": lambda a: pd.DataFrame(a).astype("Float64"),
    "rows of series": lambda a: [pd.Series(row) for row in a],
    "tensor": torch.tensor,
    "tensor with gradient": lambda a: torch.tensor(a, requires_grad=True) * 1,
    "half": lambda a: torch.tensor(a).half(),
    "bfloat16": lambda a: torch.tensor(a).bfloat16(),
    "float8": lambda a: torch.tensor(a).to(torch.float8_e5m2),
    "sparse": lambda a: torch.tensor(a).to_sparse(),
    "rows of tensors": lambda a: [torch.tensor(row, requires_grad=True) for row in a],
    "scalar tensors": lambda a: [[torch.tensor(x) for x in row] for row in a],
    "mixed": lambda a: [[np.float32(x) if i % 2 else x for i, x in enumerate(row)] for row in a.tolist()],
}
EIGHTHS = st.integers(-2, 2).map(float)
"""Numbers that every float type holds."""


@given(
    st.sampled_from(sorted(WAYS)),
    hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 4)), elements=EIGHTHS),
)
def test_every_way_to_hold_an_array_gives_the_same(way: str, array: np.ndarray) -> None:
    taken = finite_array(WAYS[way](array), (1, 2))
    np.testing.assert_array_equal(taken, array)
    assert (taken.dtype, taken.flags.writeable) == (np.float64, False)


def test_a_copy_is_taken() -> None:
    mine = np.eye(2)
    taken = finite_array(mine, (2,))
    mine[0, 0] = 5
    assert taken[0, 0] == 1


SPOILS = {
    "masked": (lambda a, at: np.ma.masked_array(a, mask=_only(a, at)), "masked"),
    "masked row": (lambda a, at: list(np.ma.masked_array(a, mask=_only(a, at))), "masked"),
    "NA": (lambda a, at: _with(pd.DataFrame(a).astype("Float64"), at, pd.NA), "NA"),
    "missing in objects": (lambda a, at: _put(a.astype(object), at, None), "missing"),
    "NaN": (lambda a, at: _put(a.copy(), at, np.nan), "nan"),
    "NaN tensor": (lambda a, at: torch.tensor(_put(a.copy(), at, np.nan)), "nan"),
    "infinite": (lambda a, at: _put(a.copy(), at, -np.inf).tolist(), "-inf"),
    "None": (lambda a, at: _put(a.astype(object), at, None).tolist(), "None"),
    "boolean": (lambda a, at: _put(a.astype(object), at, True).tolist(), "bool"),
    "numpy boolean": (lambda a, at: _put(a.astype(object), at, np.True_).tolist(), "bool"),
    "text": (lambda a, at: _put(a.astype(object), at, "1").tolist(), "str"),
    "huge integer": (lambda a, at: _put(a.astype(object), at, 10**400).tolist(), "float64"),
    "complex": (lambda a, at: _put(a.astype(object), at, 1j).tolist(), "complex"),
    "object": (lambda a, at: _put(a.astype(object), at, object()).tolist(), "object"),
    "pandas NA": (lambda a, at: _put(a.astype(object), at, pd.NA).tolist(), "NA"),
}


def _only(array: np.ndarray, at: tuple[int, int]) -> np.ndarray:
    return _put(np.zeros(array.shape, bool), at, True)


def _put(array: np.ndarray, at: tuple[int, int], value: Any) -> np.ndarray:
    array[at] = value
    return array


def _with(frame: pd.DataFrame, at: tuple[int, int], value: Any) -> pd.DataFrame:
    frame.iloc[at] = value
    return frame


@given(st.sampled_from(sorted(SPOILS)), st.integers(1, 4), st.integers(1, 4), st.data())
def test_one_bad_entry_is_named(spoil: str, rows: int, columns: int, data: st.DataObject) -> None:
    at = (data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1)))
    make, word = SPOILS[spoil]
    with pytest.raises(ValueError, match=word) as caught:
        finite_array(make(np.ones((rows, columns)), at), (2,))
    assert str(list(at)) in str(caught.value)


WRONG = {
    "booleans": np.eye(2, dtype=bool),
    "complex": np.eye(2) * 1j,
    "objects": np.eye(2).astype(object),
    "text": np.array([["a", "b"]]),
    "dates": np.array([["2020-01-01"]], dtype="M8[D]"),
    "durations": np.array([[1]], dtype="m8[s]"),
    "records": np.zeros(2, dtype=[("a", float)]),
    "longer floats": np.full((1, 1), np.longdouble("1e4000")),
    "boolean tensor": torch.eye(2).bool(),
    "complex tensor": torch.eye(2) * 1j,
    "tensor without data": torch.eye(2, device="meta"),
    "device": Elsewhere(np.eye(2)),
    "rows on a device": [Elsewhere(np.ones(2)), Elsewhere(np.ones(2))],
    "frame of text": pd.DataFrame({"a": ["x"], "b": [1.0]}),
    "frame of booleans": pd.DataFrame({"a": [True], "b": [1.0]}),
    "frame of dates": pd.DataFrame({"a": pd.date_range("2020", periods=2)}),
    "ragged": [[1.0, 2.0], [3.0]],
    "too deep": [[[[[1.0]]]]],
    "deep in one entry": [[1.0, [2.0]]],
    "empty": [],
    "empty rows": [[]],
    "empty frame": pd.DataFrame([]),
    "number": 3.0,
    "scalar array": np.array(3.0),
    "scalar tensor": torch.tensor(3.0),
    "string": "12",
    "mapping": {0: [1.0]},
    "set": {1.0, 2.0},
    "generator": (x for x in [1.0]),
    "object": object(),
}


@pytest.mark.parametrize("what", WRONG)
def test_refused_wherever_arrays_are_taken(what: str) -> None:
    """By `solve` and by `upload`, for every array, before anything is sent, and by no other error."""
    client = Client("http://127.0.0.1:9", "key")
    eye, y, value = np.eye(2), np.ones(2), WRONG[what]
    for arguments in (
        {"kernel": value, "targets": y},
        {"inputs": value, "targets": y},
        {"kernel": eye, "targets": value},
        {"kernel": eye, "targets": y, "cross_kernel": value, "test_kernel": eye},
        {"kernel": eye, "targets": y, "cross_kernel": 0 * eye, "test_kernel": value},
        {"inputs": eye, "targets": y, "test_inputs": value},
        {"inputs": eye, "targets": y, "test_inputs": eye, "test_targets": value},
    ):
        with pytest.raises(InvalidRequest) as caught:
            client.solve(**arguments)
        names = [name for name, given in arguments.items() if given is value]
        assert caught.value.errors[0].loc == ["data", *names], caught.value
        renamed = {"inputs": "x", "targets": "y", "test_inputs": "x_test", "test_targets": "y_test"}
        with pytest.raises(InvalidRequest):
            client.upload(**{renamed.get(name, name): given for name, given in arguments.items()})


def test_scalars_and_lists_of_other_libraries_are_taken_too() -> None:
    from dmft_client.arguments import build

    request = build(
        {
            "dataset": "digits",
            "classes": np.array([3, 5]),
            "gamma0": torch.tensor(0.5, requires_grad=True),
            "depth": np.array(2),
            "steps": torch.tensor(7),
            "kernel_times": pd.Series([0, -1]),
        }
    )
    assert (request.data.classes, request.network.gamma0) == ([3, 5], 0.5)  # type: ignore[union-attr]
    assert (request.network.depth, request.training.steps) == (2, 7)
    assert request.outputs.kernel_times == [0, -1]
    with pytest.raises(InvalidRequest, match=r"network\.gamma0"):
        build({"dataset": "digits", "gamma0": torch.tensor(0.5, device="meta")})
