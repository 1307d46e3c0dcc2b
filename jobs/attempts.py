"""Workers' side of the store: attempts at jobs, claimed under a lease and ended once."""

from __future__ import annotations

import itertools
import json
import math
import secrets
from collections import deque
from typing import Any

import redis
from pydantic import ValidationError

from dmft_schema import JobError, JobStatus, Progress, SolveRequest
from jobs import records, scripts, storage
from jobs.errors import LeaseLost
from jobs.records import Claim, Reaped
from jobs.settings import Settings
from jobs.workers import WorkerFacts

_MS_A_DAY = 86_400_000


class Attempts:
    """What holders of jobs do. Every transition may be sent again, and then answers as it did before."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._redis: Any = client
        self._settings = settings
        self._scripts = scripts.load(client)
        self._beats = itertools.count()
        self._unheard: deque[str] = deque()

    def _run(self, script: str, *arguments: Any) -> Any:
        return self._scripts[script](args=arguments)

    @property
    def _retention(self) -> int:
        return int(self._settings.retention_days * _MS_A_DAY)

    @property
    def _tombstone(self) -> int:
        return int(self._settings.tombstone_days * _MS_A_DAY)

    def anything_waits(self) -> bool:
        """Whether some job is queued, if only one that nobody may take just now."""
        return bool(self._redis.exists("dmft:waiting"))

    def claim(self, worker: str, facts: WorkerFacts | None = None) -> Claim | None:
        """Take the next job, fairly between users; None if there is nothing to take, or no room
        on disk for a result.

        Args:
            facts: what the worker can do, so that it takes only what it can; None takes anything.
        """
        nothing = not self._unheard and not self.anything_waits()
        if nothing or storage.shortage_of(self._settings) is not None:
            return None
        while True:
            heard_before = bool(self._unheard)
            token = self._unheard.popleft() if heard_before else secrets.token_hex(12)
            try:
                claim = self._claim(worker, token, facts)
                if claim is not None and heard_before:
                    self.beat(claim)
            except redis.RedisError:
                # It may have taken a job: asked again under this token, it answers with that one.
                self._unheard.append(token)
                raise
            except (LeaseLost, _Unreadable):
                continue
            if claim is not None or not heard_before:
                return claim

    def _claim(self, worker: str, token: str, facts: WorkerFacts | None) -> Claim | None:
        """Raises _Unreadable if the job's request is none that this version knows; the job has failed."""
        settings = self._settings
        taken = self._run(
            "claim",
            worker,
            settings.lease_milliseconds,
            settings.max_running_per_user,
            token,
            math.floor(facts.memory_bytes) if facts else "",
            json.dumps(facts.methods) if facts else "",
        )
        if not taken:
            return None
        body, owner, made_for = self._redis.hmget(f"dmft:job:{taken[0]}", "request", "owner", "numerics")
        try:
            request = SolveRequest.model_validate_json(body or "")
        except ValidationError as unknown:
            error = JobError(
                code="request_unreadable",
                message=f"the stored request is not one that this version knows ({unknown.title})",
                advice="It was stored by another version: submit it again.",
            )
            self._run(
                "finish", *taken, JobStatus.FAILED.value, error.model_dump_json(), "", self._retention, "", ""
            )
            raise _Unreadable from unknown
        if facts is None or made_for in (None, "", facts.numerics_class):
            return Claim(taken[0], taken[1], request)
        # The submission reckoned with other workers: the result is found again by these numbers' hash.
        found = request.content_hash(*facts.numerics_class.split("/"))
        return Claim(taken[0], taken[1], request, records.reuse_key(owner, found, settings), found)

    def beat(self, claim: Claim, progress: Progress | None = None) -> bool:
        """Renew the lease and publish progress. True: the job was asked to stop.

        Raises:
            LeaseLost: the job is somebody else's by now.
        """
        text = progress.model_dump_json() if progress else ""
        lease, number = self._settings.lease_milliseconds, next(self._beats)
        answer = self._run("beat", claim.id, claim.epoch, lease, text, number)
        self._check(answer, claim.id, claim.epoch)
        return bool(answer == "cancel")

    def finish(
        self,
        claim: Claim,
        status: JobStatus,
        error: JobError | None = None,
        artifact: str | None = None,
    ) -> None:
        """End a running job. Its files, if any, must be complete on disk.

        Raises:
            LeaseLost: the job is somebody else's by now; nothing was changed.
        """
        if not status.final:
            raise ValueError(f"{status} is not a final status")
        text = error.model_dump_json() if error else ""
        hashes = (claim.reuse_key, claim.content_hash)
        answer = self._run(
            "finish", claim.id, claim.epoch, status.value, text, artifact or "", self._retention, *hashes
        )
        self._check(answer, claim.id, claim.epoch)

    def attempt_failed(self, claim: Claim, error: JobError) -> JobStatus:
        """The solver died: queue the job again, or fail it with `error` after the last attempt.

        Raises:
            LeaseLost: the job is somebody else's by now.
        """
        answer = self._run(
            "attempt_failed",
            claim.id,
            claim.epoch,
            error.model_dump_json(),
            self._settings.max_attempts,
            self._retention,
        )
        self._check(answer, claim.id, claim.epoch)
        return JobStatus(answer)

    def release(self, claim: Claim) -> None:
        """Give a running job back because the worker is shutting down; the attempt is not counted.

        Raises:
            LeaseLost: the job is somebody else's by now.
        """
        answer = self._run("release", claim.id, claim.epoch, self._retention)
        self._check(answer, claim.id, claim.epoch)

    def referenced(self, artifact: str) -> bool:
        """Whether stored files are some job's result (it may be reused), so that nobody may remove them."""
        return bool(self._redis.exists(f"dmft:refs:{artifact}"))

    def reap(self, last: int = 0) -> Reaped:
        """Requeue or end jobs whose lease expired, and end retention where it is over.

        Args:
            last: when the round before was (Reaped.at), 0 if there was none. After a silence between rounds
                in which no beat can have come, leases start afresh.
        """
        attempts = self._settings.max_attempts
        error = JobError(
            code="worker_lost",
            message=f"the worker fell silent during each of {attempts} attempts",
            advice="Look into the worker's log; a solve that exhausts the memory is killed like this. "
            "Use fewer samples, or a smaller width and ensemble.",
        )
        seconds, micro = self._redis.time()
        asked = seconds * 1000 + micro // 1000
        expired, waiting, *artifacts = self._run(
            "reap",
            self._redis.info("server")["run_id"],
            self._settings.lease_milliseconds,
            attempts,
            self._retention,
            error.model_dump_json(),
            secrets.token_hex(12),
            asked,
            last,
            self._tombstone,
        )
        return Reaped(int(expired), int(waiting), artifacts, asked)

    def removed(self, artifact: str) -> None:
        """Files that were to be removed are gone; until then every reap names them again."""
        self._redis.srem("dmft:discarded", artifact)

    @staticmethod
    def _check(answer: str, job_id: str, epoch: str) -> None:
        if answer == "lost":
            raise LeaseLost(f"job {job_id}, epoch {epoch}")


class _Unreadable(Exception):
    """A stored request that does not validate."""
