"""Clients read what servers of other versions write: new fields anywhere, numbers that are none."""

from __future__ import annotations

import io
import json
import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from dmft_client import Result
from dmft_schema import (
    Capabilities,
    Diagnostics,
    Event,
    FieldError,
    Job,
    JobError,
    JobPage,
    JobStatus,
    ProblemDetail,
    ResultDocument,
    SolveRequest,
    Summary,
)
from dmft_schema.base import FROM_ANY_VERSION
from dmft_schema.summary import summarise
from tests.conftest import slow_request, small_request

DOCUMENT = ResultDocument(
    times=[0.0, 0.1],
    loss=[1.0, 0.5],
    loss_standard_error=[0.0, 0.1],
    loss_truncation_error=[0.0, 0.1],
    predictions=[[0.0, 0.0], [0.1, -0.1]],
    predictions_standard_error=[[0.0, 0.0], [0.1, 0.1]],
    test_loss=[1.0, 1.0],
    test_loss_standard_error=[0.1, 0.1],
    test_loss_truncation_error=[0.1, 0.1],
    test_predictions=[[0.0], [0.1]],
    test_predictions_standard_error=[[0.0], [0.1]],
    summary=Summary(
        final_loss=0.5,
        kernel_target_alignment=0.3,
        kernel_movement=[0.1, 0.2],
        effective_dimension=[1.5, 1.0],
    ),
    diagnostics=Diagnostics(
        method="dmft",
        samples=64,
        replicas=2,
        basis_sizes={"phi_1": 3},
        truncation_error=0.1,
        kernel_error=0.1,
        wall_seconds=1.0,
        device="cpu",
        dtype="float32",
        seed=0,
        versions={"torch": "2"},
        notes=["n"],
    ),
    manifest={"invariants": {"f(0) = 0": 0.0}, "request": small_request().model_dump(mode="json")},
)


def job(request: SolveRequest) -> Job:
    return Job(
        id="s_1",
        status=JobStatus.FAILED,
        owner="ada",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        request=summarise(request.model_dump()),
        request_hash="h",
        error=JobError(code="diverged", message="m", advice="a", step=3),
        links={"self": "/v1/solves/s_1"},
    )


DIGITS = SolveRequest.model_validate({"data": {"dataset": "digits"}, "method": {"name": "dmft"}})
INPUTS = SolveRequest.model_validate(
    {
        "data": {"inputs": [[1.0, 2.0]], "targets": [1.0]},
        "method": {"name": "linear"},
        "network": {"activation": "linear"},
    }
)
ANSWERS: list[BaseModel] = [
    DOCUMENT,
    *(job(request) for request in (small_request(), slow_request(), DIGITS, INPUTS)),
    JobPage(items=[job(small_request()), job(DIGITS)], next_cursor="c"),
    ProblemDetail(title="t", status=422, code="c", detail="d", errors=[FieldError(loc=["a", 1], msg="m")]),
    Event(id="1-0", kind="status", data={"status": "queued"}),
    Capabilities.of_contract("1", max_body_bytes=1),
]
NAMES = st.sampled_from(["zz_new", "Neu", "new-er", "_x", "größe"])
VALUES = st.sampled_from([None, True, 1.5, "text", [], {"deep": [{"er": 1}]}])
MAPPINGS = {"versions", "links", "limits", "basis_sizes", "unsupported", "manifest", "request"}
MAPPINGS |= {"networks", "blocks"}
"""What is a mapping by its nature takes new entries of its own type only; summaries of requests show all."""


def models(value: Any, mappings: set[str]) -> list[dict[str, Any]]:
    """Every object that is a model, at any depth."""
    found = [value] if isinstance(value, dict) else []
    if isinstance(value, dict):
        value = [part for key, part in value.items() if key not in mappings]
    for part in value if isinstance(value, list) else []:
        found += models(part, mappings)
    return found


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: type(answer).__name__)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_new_fields_at_every_depth_are_left_out(answer: BaseModel, data: st.DataObject) -> None:
    plain = answer.model_dump_json()
    newer = json.loads(plain)
    for part in models(newer, MAPPINGS | ({"data"} if isinstance(answer, Event) else set())):
        part |= data.draw(st.dictionaries(NAMES, VALUES, max_size=2))
    read = type(answer).model_validate_json(json.dumps(newer), context=FROM_ANY_VERSION)
    assert read.model_dump_json() == type(answer).model_validate_json(plain).model_dump_json()


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: type(answer).__name__)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_older_servers_do_not_say_has_a_default(answer: BaseModel, data: st.DataObject) -> None:
    older = json.loads(answer.model_dump_json())
    optional = [name for name, field in type(answer).model_fields.items() if not field.is_required()]
    for name in data.draw(st.lists(st.sampled_from(optional or ["none"]), unique=True)):
        older.pop(name, None)
    type(answer).model_validate_json(json.dumps(older), context=FROM_ANY_VERSION)


def test_a_summary_shows_what_a_newer_request_holds() -> None:
    newer = job(small_request()).model_dump(mode="json")
    newer["request"] |= {"new_option": 1}
    newer["request"]["network"] |= {"new_option": 2}
    shown = Job.model_validate(newer, context=FROM_ANY_VERSION).model_dump()["request"]
    assert (shown["new_option"], shown["network"]["new_option"]) == (1, 2)


def test_requests_are_as_strict_as_ever() -> None:
    body = small_request().model_dump(mode="json")
    for part in models(body, set()):
        part["new"] = 1
        with pytest.raises(ValidationError, match="new"):
            SolveRequest.model_validate(body)
        del part["new"]


def numbers(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where numbers stand that a method computes."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [path] if isinstance(value, float) else []
    for key, part in items:
        if key not in ("manifest", "data"):
            found += numbers(part, (*path, key))
    return found


@given(st.data())
def test_a_result_opens_whatever_its_numbers_are(data: st.DataObject) -> None:
    """NaN and infinities are null in JSON: of any number of the result."""
    plain = json.loads(DOCUMENT.model_dump_json())
    for path in data.draw(st.lists(st.sampled_from(numbers(plain)), min_size=1)):
        part = plain
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = data.draw(st.sampled_from([None, 0.0, 1e308]))
    read = ResultDocument.model_validate_json(json.dumps(plain))
    assert (
        ResultDocument.model_validate_json(read.model_dump_json()).model_dump_json() == read.model_dump_json()
    )

    about = {key: plain[key] for key in ("complete", "summary", "diagnostics", "manifest")}
    buffer = io.BytesIO()
    np.savez(buffer, loss=[np.nan], document=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8))
    result = Result.from_bytes(buffer.getvalue())
    expected = [math.nan if d is None else d for d in plain["summary"]["effective_dimension"]]
    np.testing.assert_array_equal(result.summary.effective_dimension, expected)


def test_not_finite_numbers_are_written_as_null_and_read_as_nan() -> None:
    summary = Summary(final_loss=None, effective_dimension=[math.nan, math.inf, 2.0])
    written = json.loads(summary.model_dump_json())
    assert written["effective_dimension"] == [None, None, 2.0]
    read = Summary.model_validate(written).effective_dimension
    np.testing.assert_array_equal(read, [math.nan, math.nan, 2.0])
