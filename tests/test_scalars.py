"""Every scalar of the contract takes its own kind and no other, wherever it stands."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from dmft_schema import SolveRequest
from dmft_schema import methods as method_models
from dmft_schema.refusal import field_errors

FULL: dict[str, Any] = SolveRequest.model_validate(
    {
        "data": {"dataset": "digits", "classes": [3, 5], "samples": 4, "test_samples": 2},
        "network": {"architecture": "residual", "depth": 2, "weight_scales": [1.0, 1.0, 1.0]},
        "training": {"steps": 5, "batch_size": 2},
        "outputs": {"kernel_times": [0, -1], "field_times": [0, 1]},
        "method": {"name": "dmft", "samples": 256},
        "name": "n",
        "tags": ["t"],
    }
).model_dump(mode="json")


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*place, key))
    elif value is not None:
        yield place


def at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value


def replaced(place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    body = copy.deepcopy(FULL)
    at(body, place[:-1])[place[-1]] = value
    return body


def json_kind(value: Any) -> str:
    return "boolean" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"


def test_the_request_itself_is_taken() -> None:
    SolveRequest.model_validate(FULL)


@pytest.mark.parametrize("place", list(places(FULL)), ids=lambda place: ".".join(map(str, place)))
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    value=st.one_of(
        st.booleans(), st.integers(-3, 3).map(str), st.just("true"), st.integers(0, 1), st.just(1.0)
    )
)
def test_a_scalar_of_another_kind_is_refused_at_its_place(place: tuple[Any, ...], value: Any) -> None:
    if json_kind(value) == json_kind(at(FULL, place)):
        return
    with pytest.raises(ValidationError) as refused:
        SolveRequest.model_validate(replaced(place, value))
    # Which method it is says pydantic of the method, whose options depend on it.
    expected = ["method"] if place == ("method", "name") else list(place)
    assert expected in [error.loc for error in field_errors(refused.value.errors())]


@pytest.mark.parametrize("method", method_models.METHODS)
def test_options_of_every_method_take_no_booleans(method: type[BaseModel]) -> None:
    fields, validate = method.model_fields, method.model_validate
    for name, field in fields.items():
        if field.annotation in (int, float, int | None, float | None):
            with pytest.raises(ValidationError, match=name):
                validate({"name": get_args(fields["name"].annotation)[0], name: True})


def test_booleans_beside_numbers_in_arrays() -> None:
    for data in (
        {"kernel": [[True, 0.2], [0.2, 1.0]], "targets": [1.0, -1.0]},
        {"kernel": [[1.0, 0.2], [0.2, 1.0]], "targets": [True, -1.0]},
        {"inputs": [[1.0, 0.5], [0.1, False]], "targets": [1.0, -1.0]},
    ):
        with pytest.raises(ValidationError, match="numbers only"):
            SolveRequest.model_validate({"data": data})


def test_whole_numbers_may_be_written_with_a_point() -> None:
    assert SolveRequest.model_validate(replaced(("training", "steps"), 5.0)).training.steps == 5
