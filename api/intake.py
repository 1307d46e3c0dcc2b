"""Bodies of requests: small ones are worked on in a thread, large ones in processes of their own.

Parsing and checking hold Python's lock: a body of 48 MB would stop everybody for seconds. A large one goes
to a file while it comes in, and a process with bounded memory reads it there, so that this process never
holds it. One user has one large body on its way at a time; the others wait, unread.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import multiprocessing
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from api.problems import Problem, of_exception
from jobs.artifacts import Artifacts
from jobs.embedded_redis import die_with_parent

logger = logging.getLogger(__name__)
T = TypeVar("T")

SMALL_BYTES = 64 * 1024
PROCESSES = 2
PLACES = 16
"""Large bodies that come in at a time, over all users."""

WAIT_SECONDS = 120.0
"""Longest that a large body waits for its turn."""

MEMORY_BYTES = 768 * 2**20
"""What one process may take for one body: some ten times the largest body of the default settings."""


class Intake:
    """Takes bodies in for the functions that know what they mean."""

    def __init__(self, make_context: Callable[[], Any], artifacts: Artifacts) -> None:
        """`make_context` makes, in each process, what those functions get as their first argument."""
        self._make_context = make_context
        self._artifacts = artifacts
        self._pools: asyncio.Queue[ProcessPoolExecutor | None] = asyncio.Queue()
        for _ in range(PROCESSES):
            self._pools.put_nowait(None)  # started when there is something for it
        self._places = asyncio.Semaphore(PLACES)
        self._turns: dict[str, asyncio.Lock] = {}
        self._waiting: dict[str, int] = {}

    async def take(self, request: Request, user_id: str, work: Callable[..., T], *arguments: Any) -> T:
        """work(context, body, *arguments), off the event loop.

        Raises:
            Problem: what `work` refuses; 503 if it is too long until this body's turn.
        """
        stream = request.stream()
        start = bytearray()
        async for chunk in stream:
            start += chunk
            if len(start) > SMALL_BYTES:
                break
        else:
            return await run_in_threadpool(work, request.app.state.services, bytes(start), *arguments)
        async with self._turn_of(user_id):
            with self._artifacts.incoming() as path:
                with path.open("wb", buffering=0) as file:
                    file.write(start)
                    start.clear()
                    async for chunk in stream:
                        file.write(chunk)
                return await self._in_process(partial(_work_on, work, path, arguments))

    @asynccontextmanager
    async def _turn_of(self, user_id: str) -> AsyncIterator[None]:
        turn = self._turns.setdefault(user_id, asyncio.Lock())
        self._waiting[user_id] = self._waiting.get(user_id, 0) + 1
        try:
            async with _patiently(turn), _patiently(self._places):
                yield
        finally:
            self._waiting[user_id] -= 1
            if not self._waiting[user_id]:
                del self._waiting[user_id], self._turns[user_id]

    async def _in_process(self, task: Callable[[], T]) -> T:
        pool = await self._pools.get()
        try:
            if pool is None:
                pool = ProcessPoolExecutor(
                    1,
                    mp_context=multiprocessing.get_context("spawn"),
                    initializer=_begin,
                    initargs=(self._make_context,),
                )
            return await asyncio.shield(asyncio.get_running_loop().run_in_executor(pool, task))
        except BrokenProcessPool:
            logger.warning("a process that worked on a large body has ended", exc_info=True)
            if pool is not None:
                pool.shutdown(wait=False)
            pool = None
            raise _too_much() from None
        finally:
            self._pools.put_nowait(pool)

    def close(self) -> None:
        """End the processes that are not at work; the others end with their work."""
        while not self._pools.empty():
            pool = self._pools.get_nowait()
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)


@asynccontextmanager
async def _patiently(turn: asyncio.Lock | asyncio.Semaphore) -> AsyncIterator[None]:
    try:
        await asyncio.wait_for(turn.acquire(), WAIT_SECONDS)
    except TimeoutError:
        detail = "too many large bodies come in at the same time: try again, one after the other"
        raise Problem(503, "busy", detail, headers={"Retry-After": "10"}) from None
    try:
        yield
    finally:
        turn.release()


def _too_much() -> Problem:
    detail = "the body takes more memory than the server gives to one: send fewer numbers"
    return Problem(413, "body_too_large", detail)


# In a process for large bodies

_context: Any = None


def _begin(make_context: Callable[[], Any]) -> None:
    global _context
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(5)  # whoever asks for little is answered first
    _context = make_context()
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))


def _work_on(work: Callable[..., T], path: Path, arguments: tuple[Any, ...]) -> T:
    try:
        return work(_context, path.read_bytes(), *arguments)
    except MemoryError:
        raise _too_much() from None
    except Exception as error:
        raise of_exception(error) from None
    finally:
        ctypes.CDLL(None).malloc_trim(0)
