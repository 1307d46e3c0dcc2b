"""Jobs in Redis: submitted, claimed under a lease, finished once (docs/jobs.md has the state machine)."""

from __future__ import annotations

import itertools
import secrets
from collections import deque
from typing import Any

import redis
from pydantic import ValidationError

from dmft_schema import Event, Job, JobError, JobPage, JobStatus, Progress, SolveRequest, large
from jobs import records, scripts, storage
from jobs.errors import (
    IdempotencyConflict,
    JobExpired,
    JobNotFinished,
    JobNotFound,
    LeaseLost,
    TooManyQueued,
)
from jobs.gauges import Gauges, measure
from jobs.listing import Listing
from jobs.records import Claim, Reaped, Submission, Tombstone
from jobs.settings import Settings
from jobs.waiting import Waiting

WORKERS = "dmft:workers"
_MS_A_DAY = 86_400_000


def event_stream(job_id: str) -> str:
    """The Redis stream of a job's events; ids of entries are ids of events."""
    return f"dmft:events:{job_id}"


class JobStore:
    """All that is known of jobs. Safe to share between threads and processes.

    Every transition may be sent again, by the Redis client or by its caller, and then answers as it did
    before without happening twice (docs/jobs.md).
    """

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._redis: Any = client
        self._settings = settings
        self._scripts = scripts.load(client)
        self._listing = Listing(client, self._run)
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

    def ping(self) -> None:
        """Raises redis.RedisError if Redis does not answer."""
        self._redis.ping()

    # Users' side

    def submit(
        self,
        request: SolveRequest,
        owner: str,
        *,
        request_hash: str,
        owner_name: str | None = None,
        idempotency_key: str | None = None,
    ) -> Submission:
        """Queue a request, or answer with what is known of it already.

        `owner` is the user's id. A finished result of the owner's same request, or anybody's if the
        settings say so, is reused (`cached`) unless request.reuse is False.
        A repeated idempotency key answers with the first job. The ticket is the caller's to send.

        Raises:
            IdempotencyConflict: the key was used for another request.
            TooManyQueued: the owner's queue is full.
            StorageFull: too little room is left on disk.
        """
        storage.check_room(self._settings)
        body = large.write(request)
        shared = self._settings.reuse_across_users
        fields = records.new(
            request,
            body,
            owner_name=owner_name or owner,
            content_hash=request_hash,
            reuse_key=request_hash if shared else f"{owner}:{request_hash}",
        )
        outcome, job_id = self._run(
            "submit",
            f"s_{secrets.token_hex(12)}",
            owner,
            idempotency_key or "",
            records.digest(body),
            self._settings.max_queued_per_user,
            self._retention,
            int(request.reuse),
            *(part for pair in fields.items() for part in pair),
        )
        if outcome == "conflict":
            raise IdempotencyConflict(f"the key was used for another request, job {job_id}")
        if outcome == "full":
            raise TooManyQueued(self._settings.max_queued_per_user)
        return Submission(self.get(job_id), created=outcome != "replayed")

    def get(self, job_id: str) -> Job:
        """The job as it is now.

        Raises:
            JobExpired: it was removed when its retention ended.
            JobNotFound: no such job.
        """
        found = self._redis.hmget(f"dmft:job:{job_id}", records.SHOWN)
        record = {name: value for name, value in zip(records.SHOWN, found, strict=True) if value is not None}
        if "status" not in record:
            if (grave := self._grave(job_id)) and grave.why == "expired":
                raise JobExpired(job_id, grave.owner, grave.at)
            raise JobNotFound(job_id)
        position = None
        if record["status"] == JobStatus.QUEUED:
            position = self._redis.zrank(f"dmft:queue:{record['owner']}", job_id)
        return self._job(record, position, self._reasons())

    def _reasons(self) -> Waiting:
        return Waiting(self._redis, self._settings, self.live_workers)

    def _job(self, record: dict[str, str], position: int | None, reasons: Waiting) -> Job:
        if "summary" not in record:  # it was stored by an earlier version
            record["summary"] = records.summary_of(self.request(record["id"])).model_dump_json()
        waits = record["status"] == JobStatus.QUEUED
        return records.job(record, position, reasons.reason(record["owner"], position) if waits else None)

    def request(self, job_id: str) -> str | None:
        """The job's request, as JSON; None if it is no longer stored."""
        stored: str | None = self._redis.hget(f"dmft:job:{job_id}", "request")
        return stored

    def _grave(self, job_id: str) -> Tombstone | None:
        return Tombstone.read(self._redis.get(f"dmft:gone:{job_id}"))

    def deleted_by(self, job_id: str) -> str | None:
        """The id of the owner of a job that was deleted not long ago; None for any other."""
        return grave.owner if (grave := self._grave(job_id)) and grave.why == "deleted" else None

    def artifact(self, job_id: str) -> str | None:
        """Name of the job's stored files; None if there are none.

        Raises:
            JobNotFound: no such job.
            LookupError: an earlier version removed them when retention ended, and kept the record.
        """
        found = self._redis.hmget(f"dmft:job:{job_id}", "status", "artifact", "expired")
        if found[0] is None:
            raise JobNotFound(job_id)
        if found[2] == "1":
            raise LookupError("expired")
        return found[1] or None

    def page(
        self,
        *,
        owner: str | None = None,
        status: JobStatus | None = None,
        tag: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> JobPage:
        """Jobs, newest first; all owners' if `owner` is None. `cursor` is a page's next_cursor."""
        found, after = self._listing.page(owner=owner, status=status, tag=tag, limit=limit, cursor=cursor)
        reasons = self._reasons()
        items = [self._job(record, position, reasons) for record, position in found]
        return JobPage(items=items, next_cursor=after)

    def mend_lists(self) -> bool:
        """Take jobs that another version stored or changed into the lists that `page` reads.

        Returns:
            Whether the lists were off.
        """
        return self._listing.mend()

    def cancel(self, job_id: str) -> Job:
        """Cancel a queued job at once, ask a running one to stop; a finished one stays as it is.

        Raises:
            JobNotFound: no such job.
        """
        if self._run("cancel", job_id, self._retention) is None:
            raise JobNotFound(job_id)
        return self.get(job_id)

    def delete(self, job_id: str) -> str | None:
        """Forget a finished job. Repeated while its tombstone lasts, it answers the same.

        Returns:
            The files that no job refers to any more, for the caller to remove.

        Raises:
            JobNotFound: no such job.
            JobNotFinished: it is queued or running.
        """
        outcome, artifact = self._run("delete", job_id, self._tombstone)
        if outcome == "unknown":
            raise JobNotFound(job_id)
        if outcome == "unfinished":
            raise JobNotFinished(job_id)
        return artifact or None

    def events(self, job_id: str, after: str = "0", block_ms: int | None = None) -> list[Event]:
        """Events after the event id `after`; waits up to `block_ms` for the first."""
        return records.events_of(self._redis.xread({event_stream(job_id): after}, count=100, block=block_ms))

    def live_workers(self) -> int:
        """Worker processes heard of within a lease."""
        seconds, micro = self._redis.time()
        oldest = seconds * 1000 + micro // 1000 - self._settings.lease_milliseconds
        return self._redis.zcount(WORKERS, oldest, "+inf")

    def gauges(self) -> Gauges:
        """How the whole service is, in numbers."""
        return measure(self._redis, self._settings, self.live_workers)

    # Workers' side

    def announce(self, worker: str) -> None:
        """Say that a worker process is alive."""
        seconds, micro = self._redis.time()
        self._redis.zadd(WORKERS, {worker: seconds * 1000 + micro // 1000})

    def retire(self, worker: str) -> None:
        """Say that a worker process is gone."""
        self._redis.zrem(WORKERS, worker)

    def anything_waits(self) -> bool:
        """Whether some job is queued, if only one that nobody may take just now."""
        return bool(self._redis.exists("dmft:waiting"))

    def claim(self, worker: str) -> Claim | None:
        """Take the next job, fairly between users; None if there is nothing to take, or no room
        on disk for a result."""
        nothing = not self._unheard and not self.anything_waits()
        if nothing or storage.shortage_of(self._settings) is not None:
            return None
        while True:
            heard_before = bool(self._unheard)
            token = self._unheard.popleft() if heard_before else secrets.token_hex(12)
            try:
                claim = self._claim(worker, token)
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

    def _claim(self, worker: str, token: str) -> Claim | None:
        """Raises _Unreadable if the job's request is none that this version knows; the job has failed."""
        settings = self._settings
        taken = self._run("claim", worker, settings.lease_milliseconds, settings.max_running_per_user, token)
        if not taken:
            return None
        body = self._redis.hget(f"dmft:job:{taken[0]}", "request")
        try:
            return Claim(taken[0], taken[1], SolveRequest.model_validate_json(body or ""))
        except ValidationError as unknown:
            error = JobError(
                code="request_unreadable",
                message=f"the stored request is not one that this version knows ({unknown.title})",
                advice="It was stored by another version: submit it again.",
            )
            self._finish(taken[0], taken[1], JobStatus.FAILED, error, None)
            raise _Unreadable from unknown

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
        self._finish(claim.id, claim.epoch, status, error, artifact)

    def _finish(
        self, job_id: str, epoch: str, status: JobStatus, error: JobError | None, artifact: str | None
    ) -> None:
        text = error.model_dump_json() if error else ""
        answer = self._run("finish", job_id, epoch, status.value, text, artifact or "", self._retention)
        self._check(answer, job_id, epoch)

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
