"""Row by row comes out what comes out at once."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import from_json

from dmft_schema import InputData, SolveRequest, large

numbers = st.one_of(st.integers(-(10**6), 10**6), st.floats(allow_nan=False, allow_infinity=False))
scalars = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=5))
points = st.lists(numbers, max_size=3)
arrays = st.lists(points | st.lists(points | st.lists(points, max_size=2), max_size=2), max_size=3)
whole_arrays = st.lists(st.integers(1, 3), min_size=1, max_size=5).map(lambda n: np.ones(n).tolist())
anything = st.recursive(  # JSON
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
)
names = st.sampled_from(["kernel", "inputs", "targets", "test_inputs", "dataset", "classes"])
documents = st.dictionaries(
    st.sampled_from(["data", "network", "kernel", "inputs"]),
    st.one_of(st.dictionaries(names, arrays | whole_arrays | anything, max_size=4), arrays, anything),
    max_size=4,
)


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | np.ndarray):
        return [plain(inner) for inner in value]
    return value.item() if isinstance(value, np.generic) else value


@settings(max_examples=400, deadline=None, derandomize=True)
@given(document=documents, indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_reading(document: Any, indent: int | None, ascii_only: bool) -> None:
    body = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode()
    assert plain(large.read(body)) == from_json(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"data": {"kernel": [[1,]]}}',
        b'{"data": {"kernel": [[1] [2]]}}',
        b'{"data": {"kernel": [[1], ]}}',
        b'{"data": {"kernel": [[01]]}}',
        b'{"data": {"kernel": [[1]]]}}',
        b'{"data": {"kernel": [[.5]]}}',
        b'{"data": {"kernel": [[0x1]]}}',
    ],
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    for reader in (large.read, from_json):
        with pytest.raises(ValueError, match="line 1 column"):
            reader(body)


def requests() -> list[SolveRequest]:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(4, 3)) * 10.0 ** rng.integers(-20, 20, size=(4, 3))
    data: list[dict[str, Any]] = [
        {"inputs": inputs, "targets": [1, -1, 1, 1]},
        {"inputs": inputs, "targets": rng.normal(size=(4, 2)), "test_inputs": inputs[:2]},
        {"kernel": np.eye(3), "targets": [1.0, 1e16, -1e-7]},
        {"dataset": "digits"},
    ]
    options: dict[str, Any] = {"name": 'é"\\', "tags": ["a", "\N{SNOWMAN}"], "outputs": {"kernel_times": [0]}}
    return [SolveRequest.model_validate({"data": d, **o}) for d in data for o in ({}, options)]


@pytest.mark.parametrize("request_", requests())
def test_writing(request_: SolveRequest) -> None:
    assert large.write(request_) == request_.model_dump_json().encode()
    assert large.write_data(request_.data) == request_.data.model_dump_json(exclude_none=True).encode()


@pytest.mark.parametrize("request_", requests())
def test_the_content_hash(request_: SolveRequest) -> None:
    content = request_.model_dump(mode="json", exclude={"name", "tags", "priority", "reuse"})
    text = json.dumps([content, "4", "cpu"], sort_keys=True, separators=(",", ":"))
    assert request_.content_hash("4", "cpu") == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 4), (3, 2, 1, 4)])
def test_sequences_and_images_are_read_and_written(shape: tuple[int, ...]) -> None:
    inputs = np.random.default_rng(0).normal(size=shape)
    data = InputData.model_validate({"inputs": inputs, "targets": [1, -1, 1]})
    body = b'{"data": ' + large.write_data(data) + b"}"
    assert from_json(body)["data"]["inputs"] == inputs.tolist()
    found = large.read(body)["data"]["inputs"]
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, inputs)
    text = json.dumps(data.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    assert b"".join(large.canonical(data)) == text.encode()


def test_a_hundred_thousand_short_rows_make_no_lists() -> None:
    images = np.ones((100, 32, 32, 3))
    body = json.dumps({"data": {"inputs": images.tolist(), "targets": [1.0] * 100}}).encode()
    assert body.count(b"[") > large.MAX_LISTS
    np.testing.assert_array_equal(large.read(body)["data"]["inputs"], images)
    for misplaced in (
        body.replace(b'"data"', b'"date"'),  # not in data
        body.replace(b"1.0]]]]", b"1.0]]]"),  # of two shapes
        body.replace(b"[[[[1.0,", b"[[[[true,"),
    ):
        with pytest.raises(large.TooMuchBeside, match=r"lists and objects .*20000"):
            large.read(misplaced)
