"""Waiting for what other processes do: always for a condition, always with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from dmft_schema import Event, JobStatus
from jobs.store import JobStore

T = TypeVar("T")


def event(store: JobStore, job_id: str, wanted: Callable[[Event], bool], seconds: float = 60.0) -> Event:
    """The first event of a job that is `wanted`."""
    deadline, after = time.monotonic() + seconds, "0"
    while time.monotonic() < deadline:
        for found in store.events(job_id, after, block_ms=500):
            after = found.id
            if wanted(found):
                return found
    raise AssertionError(f"job {job_id} never had the event: {store.get(job_id)}")


def running(store: JobStore, job_id: str, attempt: int = 1) -> Event:
    """Returns once an attempt of the job has made progress."""
    begun = event(
        store,
        job_id,
        lambda e: e.data.get("status") == "running" and e.data.get("attempts") == attempt,
    )
    return event(store, job_id, lambda e: e.kind == "progress" and e.id > begun.id)


def final(store: JobStore, job_id: str, seconds: float = 180.0) -> JobStatus:
    """The job's final status."""
    found = event(
        store,
        job_id,
        lambda e: "attempts" in e.data and JobStatus(e.data["status"]).final,
        seconds,
    )
    return JobStatus(found.data["status"])


def until(condition: Callable[[], T | None], seconds: float = 30.0) -> T:
    """The first true value of `condition`, for what sends no events."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds:g} s: {condition}")
