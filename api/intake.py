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
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, TypeVar, cast

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

WORK_SECONDS = 120.0
"""Longest that one body may be worked on."""

MEMORY_BYTES = 768 * 2**20
"""What one process may take for one body: some ten times the largest body of the default settings."""


class Intake:
    """Takes bodies in for the functions that know what they mean."""

    def __init__(self, make_context: Callable[[], Any], artifacts: Artifacts) -> None:
        """`make_context` makes, in each process, what those functions get as their first argument."""
        self._artifacts = artifacts
        self._helpers = [_Helper(make_context) for _ in range(PROCESSES)]
        self._free: asyncio.Queue[_Helper] = asyncio.Queue()
        for helper in self._helpers:
            self._free.put_nowait(helper)
        self._threads = ThreadPoolExecutor(PROCESSES, thread_name_prefix="intake")
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
                return await self._in_process(partial(_work_on, work, path, arguments), _BODY_TOO_MUCH)

    async def aside(self, user_id: str, work: Callable[..., T], *arguments: Any, too_much: Problem) -> T:
        """work(context, *arguments) in such a process, for what would hold up everybody here.

        Raises:
            Problem: what `work` refuses; `too_much` if it takes more memory or time than one gets; 503 if
                it is too long until this user's turn.
        """
        async with self._turn_of(user_id):
            return await self._in_process(partial(_work, work, arguments), too_much)

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

    async def _in_process(self, task: Callable[[Any], T], too_much: Problem) -> T:
        helper = await self._free.get()
        try:
            loop = asyncio.get_running_loop()
            running = loop.run_in_executor(self._threads, helper.run, task)
        except BaseException:
            self._free.put_nowait(helper)
            raise
        # Whoever asked may be gone before it is done; the process is free only then.
        running.add_done_callback(lambda _: self._free.put_nowait(helper))
        outcome = await asyncio.shield(running)
        if isinstance(outcome, _TooMuch):
            raise too_much
        if isinstance(outcome, Exception):
            raise outcome
        return cast(T, outcome)

    def close(self) -> None:
        """End the processes; what they were working on is not done."""
        for helper in self._helpers:
            helper.end()
        self._threads.shutdown(wait=False, cancel_futures=True)


class _Helper:
    """A process for one body at a time, started when there is one."""

    def __init__(self, make_context: Callable[[], Any]) -> None:
        self._make_context = make_context
        self._process: SpawnProcess | None = None
        self._pipe: Connection[Any, Any] | None = None

    def run(self, task: Callable[[Any], Any]) -> Any:
        """What the task returns, or the exception that it raises."""
        try:
            if self._process is None or not self._process.is_alive():
                self._start()
            assert self._pipe is not None
            self._pipe.send(task)
            if self._pipe.poll(WORK_SECONDS):
                return self._pipe.recv()
            logger.warning("a large body took longer than %g s", WORK_SECONDS)
        except (EOFError, OSError):
            logger.warning("a process that worked on a large body has ended", exc_info=True)
        self.end()
        return _TooMuch()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=[theirs, self._make_context], daemon=True)
        self._process.start()
        theirs.close()

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


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


class _TooMuch(Exception):
    """It took more memory or time than one piece of work gets."""


_BODY_TOO_MUCH = Problem(
    413, "body_too_large", "the body takes more memory than the server gives to one: send fewer numbers"
)


# In a process for large bodies


def _serve(pipe: Connection[Any, Any], make_context: Callable[[], Any]) -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(5)  # whoever asks for little is answered first
    context = make_context()
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        pipe.send(_outcome(task, context))
        ctypes.CDLL(None).malloc_trim(0)


def _outcome(task: Callable[[Any], Any], context: Any) -> Any:
    try:
        return task(context)
    except MemoryError:
        return _TooMuch()
    except Exception as error:
        try:
            return of_exception(error)
        except Exception:
            logger.exception("work on a large body failed")
            return RuntimeError(f"{type(error).__name__} in a process for large bodies")


def _work(work: Callable[..., T], arguments: tuple[Any, ...], context: Any) -> T:
    return work(context, *arguments)


def _work_on(work: Callable[..., T], path: Path, arguments: tuple[Any, ...], context: Any) -> T:
    return work(context, path.read_bytes(), *arguments)
