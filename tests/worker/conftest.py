"""A supervisor with real solver processes, run in threads of the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from jobs.artifacts import Artifacts
from jobs.settings import Settings
from jobs.store import JobStore
from worker.solver import SolverPool, SolverProcess
from worker.supervisor import Supervisor


class WatchedPool(SolverPool):
    """A pool that tells which solver it lent last."""

    last: SolverProcess | None = None

    def acquire(self) -> SolverProcess:
        self.last = super().acquire()
        return self.last


@pytest.fixture(scope="session")
def pool() -> Iterator[WatchedPool]:
    pool = WatchedPool()
    yield pool
    pool.close()


@pytest.fixture
def supervisor(store: JobStore, artifacts: Artifacts, pool: WatchedPool, settings: Settings) -> Supervisor:
    return Supervisor(store, artifacts, pool, settings, "test-worker")


class Background:
    """`supervisor.work()` in a thread; joined at the end of the test."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._supervisors: list[Supervisor] = []

    def work(self, supervisor: Supervisor) -> threading.Thread:
        thread = threading.Thread(target=supervisor.work)
        thread.start()
        self._threads.append(thread)
        self._supervisors.append(supervisor)
        return thread

    def end(self) -> None:
        for supervisor in self._supervisors:
            supervisor.draining.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture
def background() -> Iterator[Background]:
    background = Background()
    yield background
    background.end()
