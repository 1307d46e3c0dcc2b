"""The threads of a worker that see jobs through, each one job at a time."""

from __future__ import annotations

import logging
import threading
import time

import redis

from worker.supervisor import Supervisor

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""A slot with nothing to do looks this often by itself: for tickets that were lost."""


class Slots:
    """As many threads as the worker solves side by side; they look for a job whenever there may be one.

    A wake-up is never lost: one that comes while all are busy, or just as one has found nothing, has the next
    that would sleep look once more. Who finds a job wakes another before it begins, so that one wake-up is
    enough for any number of jobs.
    """

    def __init__(self, supervisor: Supervisor, count: int) -> None:
        self._supervisor = supervisor
        self._condition = threading.Condition()
        self._woken = False
        # Daemons: a worker that is told to go at once goes; its leases end by themselves.
        self._threads = [
            threading.Thread(target=self._serve, name=f"slot-{index}", daemon=True) for index in range(count)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """There may be work."""
        with self._condition:
            self._woken = True
            self._condition.notify()

    def drain(self) -> None:
        """Take no more jobs, and give back those that run."""
        self._supervisor.draining.set()
        with self._condition:
            self._condition.notify_all()

    def join(self, timeout: float) -> bool:
        """Wait until all have ended, after drain(). Whether they have."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _serve(self) -> None:
        while not self._supervisor.draining.is_set():
            try:
                self._supervisor.work(self.wake)
            except redis.RedisError:
                logger.warning("Redis does not answer; looking again", exc_info=True)
            except Exception:
                logger.exception("a job ended in a way that was not foreseen")
            self._sleep()

    def _sleep(self) -> None:
        with self._condition:
            self._condition.wait_for(
                lambda: self._woken or self._supervisor.draining.is_set(), timeout=LOOK_SECONDS
            )
            self._woken = False
