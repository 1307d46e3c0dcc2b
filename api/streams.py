"""Waiting for a job's events without holding a thread."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator

from api.services import Services
from dmft_schema import Event, JobStatus
from jobs.errors import JobNotFound
from jobs.store import event_stream

_BLOCK_MS = 2_000


def is_final(event: Event) -> bool:
    """Whether this is a job's last event."""
    return event.kind == "status" and JobStatus(event.data["status"]).final


async def follow(
    services: Services, job_id: str, after: str, deadline: float | None = None
) -> AsyncIterator[Event | None]:
    """Events of a job after the event id `after`, up to its final status.

    Yields None every few seconds in which nothing happens; ends at `deadline` (time.monotonic()).
    """
    from starlette.concurrency import run_in_threadpool

    while deadline is None or time.monotonic() < deadline:
        left = _BLOCK_MS
        if deadline is not None:
            left = max(1, min(left, int((deadline - time.monotonic()) * 1000)))
        answer = await services.streams.xread({event_stream(job_id): after}, block=left, count=100)
        entries = [entry for _, stream in answer or [] for entry in stream]
        for entry_id, fields in entries:
            after = entry_id
            event = Event(id=entry_id, kind=fields["kind"], data=json.loads(fields["data"]))
            yield event
            if is_final(event):
                return
        if not entries:
            try:
                job = await run_in_threadpool(services.store.get, job_id)
            except JobNotFound:
                return
            if job.status.final:
                return
            yield None
