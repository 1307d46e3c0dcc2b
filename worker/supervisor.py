"""Takes jobs from the store and sees each through: solver, lease, progress, cancel, result."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import redis

from dmft_schema import JobError, JobStatus, Progress, UploadedData
from jobs import logs, storage
from jobs.artifacts import Artifacts
from jobs.errors import ArtifactMissing, LeaseLost
from jobs.records import Claim
from jobs.settings import Settings
from jobs.store import JobStore
from jobs.workers import WorkerFacts
from worker.protocol import STORAGE_FULL, Message, SolveCommand
from worker.solver import SolverDied, SolverPool, SolverProcess

logger = logging.getLogger(__name__)

_PUBLISH_SECONDS = 0.25
_STOP_GRACE_SECONDS = 10.0
_REDIS_RETRY_SECONDS = 0.5


def _nothing() -> None:
    pass


class Supervisor:
    """One for each worker process; its slots share it.

    Attributes:
        draining: set when the worker shuts down; running jobs then go back to the queue.
    """

    def __init__(
        self,
        store: JobStore,
        artifacts: Artifacts,
        pool: SolverPool,
        settings: Settings,
        worker: str,
        tell: Callable[[], object] = _nothing,
        facts: WorkerFacts | None = None,
    ) -> None:
        """
        Args:
            tell: called when there may be work that this worker leaves to others.
            facts: what the worker has announced, so that it takes nothing that it cannot do.
        """
        self._store = store
        self._artifacts = artifacts
        self._pool = pool
        self._settings = settings
        self._worker = worker
        self._tell = tell
        self._facts = facts
        self.draining = threading.Event()

    def work(self, found: Callable[[], object] = _nothing) -> int:
        """See jobs through until there is none to take. Returns how many there were.

        Args:
            found: called when a job was taken, before it begins: there may be more.
        """
        count = 0
        while not self.draining.is_set():
            claim = self._claim()
            if claim is None:
                break
            count += 1
            found()
            with logs.about(job_id=claim.id):
                self._see_through(claim)
        if count and self._store.anything_waits():
            # What ended may have been in the way of a job that only another worker can take.
            self._tell()
        return count

    def _claim(self) -> Claim | None:
        """The next job. A claim that got no answer may have taken one, and nobody else knows of it: the
        store asks again until it has an answer."""
        while True:
            try:
                return self._store.claim(self._worker, self._facts)
            except redis.RedisError:
                logger.warning("Redis did not answer a claim; asking again", exc_info=True)
                if self.draining.wait(_REDIS_RETRY_SECONDS):
                    raise

    def _see_through(self, claim: Claim) -> None:
        try:
            self._run(claim)
        except LeaseLost:
            logger.warning("job %s was taken away; its solver is stopped", claim.id)
        except OSError as error:
            if not storage.is_full(error):
                raise
            self._without_room(claim)

    def _without_room(self, claim: Claim) -> None:
        """Give a job back whose files found no room; no more are claimed until there is some.

        Where its own files were what filled the disk, trying again would fill it again: that counts as an
        attempt.
        """
        self._artifacts.remove_result(self._artifacts.result_name(claim.id, claim.epoch))
        lacking = storage.shortage_of(self._settings)
        logger.error("no room for the files of job %s (%s)", claim.id, lacking or "they were too large")
        try:
            if lacking is not None:
                self._until_redis_answers(lambda: self._store.release(claim))
            else:
                self._until_redis_answers(lambda: self._store.attempt_failed(claim, STORAGE_FULL))
        except LeaseLost:
            logger.warning("job %s was taken away meanwhile", claim.id)

    def _run(self, claim: Claim) -> None:
        name, folder = self._artifacts.new_result(claim.id, claim.epoch)
        try:
            dataset = self._dataset(claim)
        except ArtifactMissing as missing:
            error = JobError(
                code="dataset_missing",
                message=f"{missing} is gone",
                advice="Upload it again with POST /v1/datasets.",
            )
            self._settle(claim, JobStatus.FAILED, error, None)
            return
        solver = self._pool.acquire()
        healthy = False
        try:
            solver.solve(
                SolveCommand(
                    request=claim.request,
                    folder=str(folder),
                    job_id=claim.id,
                    dataset=dataset,
                    device=self._settings.device,
                    threads=self._settings.solver_threads,
                    memory_bytes=self._memory_bytes,
                )
            )
            healthy = self._watch(claim, solver, name)
        except SolverDied as death:
            self._artifacts.remove_result(name)
            error = JobError(
                code="solver_died",
                message=f"{death}, in each of {self._settings.max_attempts} attempts",
                advice="The usual cause is memory: use fewer samples, a smaller width and ensemble, "
                "or fewer kernel times.",
            )
            self._until_redis_answers(lambda: self._store.attempt_failed(claim, error))
        except LeaseLost:
            self._until_redis_answers(lambda: self._remove_unless_accepted(name))
            raise
        finally:
            if healthy:
                self._pool.give_back(solver)
            elif self.draining.is_set():
                solver.kill()
            else:
                self._pool.replace(solver)

    @property
    def _memory_bytes(self) -> float | None:
        if self._facts is not None:
            return self._facts.memory_bytes
        return self._settings.solve_bytes if self._settings.device == "cpu" else None

    def _remove_unless_accepted(self, name: str) -> None:
        """What a record names as a job's result is never removed, whatever was heard of it."""
        if not self._store.referenced(name):
            self._artifacts.remove_result(name)

    def _dataset(self, claim: Claim) -> str | None:
        if not isinstance(claim.request.data, UploadedData):
            return None
        return str(self._artifacts.dataset_file(claim.request.data.dataset_id).resolve())

    def _watch(self, claim: Claim, solver: SolverProcess, name: str) -> bool:
        """Follow a solver to the end of its job. True if it can take another."""
        beat_seconds = self._settings.lease_seconds / 4
        last_beat = time.monotonic()
        progress: Progress | None = None
        stop_deadline: float | None = None
        last_sign = last_beat
        stalled = asked = False
        while True:
            due = last_beat + (_PUBLISH_SECONDS if progress else beat_seconds)
            message = solver.receive(min(due - time.monotonic(), _PUBLISH_SECONDS))
            if message is not None and message.done is not None:
                if stalled and message.done is JobStatus.CANCELLED:
                    message = message.model_copy(
                        update={"done": JobStatus.FAILED, "error": self._stalled(True)}
                    )
                self._finish(claim, message, progress, name)
                return not message.spent
            if message is not None:
                last_sign = time.monotonic()
            if message is not None and message.progress is not None:
                progress = message.progress
            if self.draining.is_set():
                self._artifacts.remove_result(name)
                self._until_redis_answers(lambda: self._store.release(claim))
                return False
            now = time.monotonic()
            if stop_deadline is not None and now > stop_deadline and not asked:
                stop_deadline, asked = now + _STOP_GRACE_SECONDS, True
                solver.ask_for_what_there_is()
            elif stop_deadline is not None and now > stop_deadline:
                self._artifacts.remove_result(name)
                if stalled:
                    self._settle(claim, JobStatus.FAILED, self._stalled(False), None)
                else:
                    self._settle(claim, JobStatus.CANCELLED, None, None)
                return False
            if stop_deadline is None and 0 < self._settings.stall_seconds < now - last_sign:
                stop_deadline, stalled, asked = now + _STOP_GRACE_SECONDS, True, True
                solver.ask_for_what_there_is()
            if now >= due:
                last_beat = now
                if self._beat(claim, progress) and stop_deadline is None:
                    stop_deadline = now + _STOP_GRACE_SECONDS
                    solver.ask_to_stop()
                progress = None

    def _stalled(self, kept: bool) -> JobError:
        what = (
            "the trajectory that it had reached is kept"
            if kept
            else "asked for what it had reached, it did not answer, so that nothing of it could be kept"
        )
        return JobError(
            code="stalled",
            message=f"the solver gave no sign of life for {self._settings.stall_seconds:g} s; {what}",
            advice="Use a smaller problem, or ask the server's operator to raise DMFT_STALL_SECONDS.",
        )

    def _beat(self, claim: Claim, progress: Progress | None) -> bool:
        try:
            return self._store.beat(claim, progress)
        except redis.RedisError:
            # The solve goes on: after a restart of Redis the lease is renewed by the reaper.
            logger.warning("Redis did not take the heartbeat of job %s", claim.id, exc_info=True)
            return False

    def _finish(self, claim: Claim, message: Message, progress: Progress | None, name: str) -> None:
        assert message.done is not None
        if progress is not None:
            self._beat(claim, progress)
        if message.error is not None and message.error.code == STORAGE_FULL.code:
            self._without_room(claim)
            return
        stored = self._artifacts.seal(name)
        self._settle(claim, message.done, message.error, name if stored else None)

    def _settle(self, claim: Claim, status: JobStatus, error: JobError | None, artifact: str | None) -> None:
        self._until_redis_answers(lambda: self._store.finish(claim, status, error, artifact))

    def _until_redis_answers(self, transition) -> None:  # type: ignore[no-untyped-def]
        """A result must not be lost because Redis restarts just now."""
        while True:
            try:
                transition()
                return
            except redis.RedisError:
                logger.warning("Redis does not answer; trying again", exc_info=True)
                if self.draining.wait(_REDIS_RETRY_SECONDS):
                    raise
