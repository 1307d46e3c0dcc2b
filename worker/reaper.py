"""A thread of every worker: says that the worker lives, and tends to what fell by the wayside."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import redis

from jobs.artifacts import Artifacts
from jobs.settings import Settings
from jobs.store import JobStore
from jobs.workers import WorkerFacts

logger = logging.getLogger(__name__)


class Reaper(threading.Thread):
    """Every quarter of a lease: announce the worker, requeue expired leases, end retention. Any number of
    them may run; each round is one atomic script."""

    def __init__(
        self,
        store: JobStore,
        artifacts: Artifacts,
        settings: Settings,
        worker: str,
        tell: Callable[[], object],
        facts: WorkerFacts,
    ) -> None:
        """`tell` is called when jobs were queued again; `facts` are what the worker can do."""
        super().__init__(name="reaper", daemon=True)
        self._store = store
        self._artifacts = artifacts
        self._tell = tell
        self._facts = facts
        self._interval = settings.lease_seconds / 4
        self._worker = worker
        self._last = 0
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.round()
            except redis.RedisError:
                logger.warning("Redis does not answer; trying again", exc_info=True)
            self._stopping.wait(self._interval)

    def round(self) -> None:
        """One round."""
        self._store.announce(self._worker, self._facts)
        reaped = self._store.reap(self._last)
        self._last = reaped.at
        if reaped.expired:
            logger.warning("%d jobs had lost their worker", reaped.expired)
            self._tell()
        for name in reaped.artifacts:
            self._artifacts.remove_result(name)
            self._store.removed(name)
        self._artifacts.sweep()
        if self._store.mend_lists():
            logger.info("jobs of another version were taken into the lists")

    def stop(self) -> None:
        """End the thread and say that the worker is gone."""
        self._stopping.set()
        try:
            self._store.retire(self._worker)
        except redis.RedisError:
            logger.warning("could not sign off; the worker counts as live for one more lease")
