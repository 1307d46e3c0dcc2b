"""Waiting for a job's events without holding a thread, for as many at a time as there are places."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import redis
import redis.asyncio

from dmft_schema import Event, JobStatus
from jobs.connection import connect_async
from jobs.records import events_of
from jobs.store import event_stream

_BLOCK_MS = 1_000
"""How long one read waits: a closing server, a revoked key and a deleted job are noticed this soon."""

_PATIENCE = 60.0
"""Seconds for which streams go on while the store does not answer."""

_PAUSE = 0.5


class Streams:
    """The waits of one API process, each with a connection of its own to Redis."""

    def __init__(self, url: str, places: int) -> None:
        self._redis: Any = connect_async(url, connections=places, timeout=_BLOCK_MS / 1000 + 5)
        self._places = places
        self.taken = 0
        self.closing = False

    def take(self) -> bool:
        """Take a place, to be given back; False if all are taken."""
        if self.closing or self.taken >= self._places:
            return False
        self.taken += 1
        return True

    def give_back(self) -> None:
        self.taken -= 1

    async def close(self) -> None:
        self.closing = True
        await self._redis.aclose()

    async def latest(self, job_id: str) -> str:
        """The id of a job's latest event, "0" if there is none or the store does not say."""
        try:
            found = await self._redis.xrevrange(event_stream(job_id), count=1)
        except redis.RedisError:
            return "0"
        return found[0][0] if found else "0"

    async def follow(
        self,
        job_id: str,
        after: str = "0",
        *,
        deadline: float | None = None,
        welcome: Callable[[], Awaitable[bool]] | None = None,
    ) -> AsyncIterator[Event]:
        """Events of a job after the event id `after`, up to its final status; needs a place.

        Ends early at `deadline` (time.monotonic()), when the server closes, when the job is deleted, when the
        store is away for long, and as soon as `welcome`, asked before each batch, says no.
        """
        heard = time.monotonic()
        while not self.closing and (deadline is None or time.monotonic() < deadline):
            left = _BLOCK_MS
            if deadline is not None:
                left = max(1, min(left, int((deadline - time.monotonic()) * 1000)))
            try:
                found, over = await self._read(job_id, after, left)
                if welcome is not None and not await welcome():
                    return
            except redis.RedisError:
                if time.monotonic() - heard > _PATIENCE:
                    return
                await asyncio.sleep(_PAUSE)
                continue
            heard = time.monotonic()
            for event in found:
                after = event.id
                yield event
                if event.kind == "status" and JobStatus(event.data["status"]).final:
                    return
            if over:
                return

    async def _read(self, job_id: str, after: str, block_ms: int) -> tuple[list[Event], bool]:
        """New events, and whether there will be none after them."""
        position = {event_stream(job_id): after}
        found = events_of(await self._redis.xread(position, block=block_ms, count=100))
        if found:
            return found, False
        status = await self._redis.hget(f"dmft:job:{job_id}", "status")
        if status is not None and not JobStatus(status).final:
            return [], False
        # The last event may have come between the two looks.
        return events_of(await self._redis.xread(position, count=100)), True


@asynccontextmanager
async def place_in(streams: Streams) -> AsyncIterator[bool]:
    """A place for as long as the block runs; False if there is none."""
    taken = streams.take()
    try:
        yield taken
    finally:
        if taken:
            streams.give_back()


async def finished(streams: Streams, job_id: str, seconds: float, after: str = "0") -> bool:
    """Wait for a job's final status, which comes after the event id `after`. False if there is no place.

    Returns when it is there, or after `seconds`, or when waiting is over for another reason: whoever asks
    looks at the job then.
    """
    async with place_in(streams) as placed:
        if not placed:
            return False
        with suppress(redis.RedisError):
            async for _ in streams.follow(job_id, after, deadline=time.monotonic() + seconds):
                pass
        return True
