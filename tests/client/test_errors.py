"""Errors survive the way from one process to another."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dmft_client
from dmft_client import ApiError, Client, ClientError, SolveCancelled, SolveFailed, WaitTimeout, errors
from dmft_schema import FieldError, Job, JobError, JobStatus, ProblemDetail
from dmft_schema.summary import summarise
from tests.conftest import small_request

JOB = Job(
    id="s_1",
    status=JobStatus.FAILED,
    owner="ada",
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    request=summarise(small_request().model_dump()),
    request_hash="h",
    error=JobError(code="diverged", message="the loss", advice="smaller steps", step=3),
)
PROBLEM = ProblemDetail(
    title="T", status=422, code="c", detail="d", errors=[FieldError(loc=["data", 1], msg="m")]
)


def classes() -> list[type[ClientError]]:
    """Every error class that the client has, or will have."""
    found, left = [], [ClientError]
    while left:
        found.append(left.pop())
        left += found[-1].__subclasses__()
    return sorted((c for c in found if c.__module__.startswith("dmft_client")), key=lambda c: c.__name__)


def arguments(kind: type[ClientError], text: str, seconds: float) -> tuple[Any, ...]:
    if issubclass(kind, ApiError):
        return (PROBLEM.model_copy(update={"detail": text}),)
    if issubclass(kind, WaitTimeout):
        return (JOB, seconds, errors.ConnectionFailed(text))
    return (JOB,) if issubclass(kind, SolveFailed | SolveCancelled) else (text,)


def same(first: ClientError, second: ClientError) -> bool:
    return (type(first), str(first), first.args) == (type(second), str(second), second.args) and (
        {k: v for k, v in vars(first).items() if k != "__notes__"}
        == {k: v for k, v in vars(second).items() if k != "__notes__"}
    )


def raised(kind_name: str) -> None:
    kind = getattr(errors, kind_name)
    raise kind(*arguments(kind, "why", 2.0))


def refused(key: str | None) -> None:
    Client("http://127.0.0.1:9", key).solve(kernel=np.array([[1.0, 2.0], [2.0, 1.0]]), targets=[1, -1])


def test_every_class_is_exported() -> None:
    assert {kind.__name__ for kind in classes()} <= set(dmft_client.__all__)


@given(st.sampled_from(classes()), st.text(), st.floats(0, 1e6), st.integers(2, pickle.HIGHEST_PROTOCOL))
def test_pickled_and_unpickled_they_are_the_same(
    kind: type[ClientError], text: str, seconds: float, protocol: int
) -> None:
    error = kind(*arguments(kind, text, seconds))
    again = pickle.loads(pickle.dumps(error, protocol))
    assert same(error, again)
    assert same(error, pickle.loads(pickle.dumps(again)))
    if isinstance(error, ApiError):
        assert (again.errors, again.status, again.code) == (error.errors, error.status, error.code)
    if isinstance(error, SolveFailed):
        assert again.error.advice == "smaller steps"


def test_so_are_those_that_users_derive() -> None:
    error = Derived(3, note="n")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.note) == (Derived, "number 3", "n")


class Derived(ClientError):
    def __init__(self, number: int, *, note: str) -> None:
        super().__init__(f"number {number}")
        self.note = note


def test_they_are_the_builtin_errors_that_users_catch() -> None:
    assert issubclass(WaitTimeout, TimeoutError)
    assert issubclass(errors.ConnectionFailed, ConnectionError)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_pools_pass_them_on(start: str) -> None:
    context = multiprocessing.get_context(start)
    with context.Pool(1) as pool:
        for kind in classes():
            # A pool whose task raises what cannot be unpickled hangs for ever.
            with pytest.raises(kind, match=r"why|d \[|s_1|^why"):
                pool.map_async(raised, [kind.__name__]).get(60)
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        for kind in classes():
            with pytest.raises(kind):
                executor.submit(raised, kind.__name__).result(60)
        with pytest.raises(dmft_client.InvalidRequest, match="semidefinite") as caught:
            executor.submit(refused, "key").result(60)
        assert caught.value.errors


@settings(max_examples=20)
@given(st.sampled_from(["plain", "key\n", " key "]))
def test_keys_with_white_space_around_them_are_taken(key: str) -> None:
    assert Client("http://127.0.0.1:9", key).url == "http://127.0.0.1:9"
