"""Jobs in Redis: submitted, claimed under a lease, finished once (docs/jobs.md has the state machine)."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence

import redis

from dmft_schema import Event, Job, JobPage, JobStatus, SolveRequest, large
from jobs import records, storage
from jobs.attempts import Attempts
from jobs.errors import IdempotencyConflict, JobExpired, JobNotFinished, JobNotFound, TooManyQueued
from jobs.gauges import Gauges, measure
from jobs.listing import Listing
from jobs.records import Claim, Submission, Tombstone
from jobs.settings import Settings
from jobs.waiting import Waiting
from jobs.workers import Crew, WorkerFacts

__all__ = ["Claim", "JobStore", "event_stream"]


def event_stream(job_id: str) -> str:
    """The Redis stream of a job's events; ids of entries are ids of events."""
    return f"dmft:events:{job_id}"


class JobStore(Attempts):
    """All that is known of jobs. Safe to share between threads and processes.

    Every transition may be sent again, by the Redis client or by its caller, and then answers as it did
    before without happening twice (docs/jobs.md).
    """

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        super().__init__(client, settings)
        self._listing = Listing(client, self._run)

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
        numerics: str = "",
        other_hashes: Sequence[str] = (),
        memory_bytes: float | None = None,
        owner_name: str | None = None,
        idempotency_key: str | None = None,
    ) -> Submission:
        """Queue a request, or answer with what is known of it already.

        Args:
            owner: the user's id.
            request_hash: the request's, for the workers that are to take it.
            numerics: their class (jobs.workers.numerics_class); "" if it is not known.
            other_hashes: those for the other classes of workers that could take it.
            memory_bytes: what it needs; None lets every worker take it.

        A finished result of the owner's same request, or anybody's if the
        settings say so, is reused (`cached`) unless request.reuse is False.
        A repeated idempotency key answers with the first job. The ticket is the caller's to send.

        Raises:
            IdempotencyConflict: the key was used for another request.
            TooManyQueued: the owner's queue is full.
            StorageFull: too little room is left on disk.
        """
        storage.check_room(self._settings)
        body = large.write(request)
        hashes = [request_hash, *other_hashes]
        reuse_keys = [records.reuse_key(owner, one, self._settings) for one in hashes]
        fields = records.new(
            request,
            body,
            owner_name=owner_name or owner,
            content_hash=request_hash,
            reuse_key=reuse_keys[0],
            numerics=numerics,
            memory_bytes=memory_bytes,
        )
        outcome, job_id = self._run(
            "submit",
            f"s_{secrets.token_hex(12)}",
            owner,
            idempotency_key or "",
            records.digest(body),
            self._settings.max_queued_per_user,
            self._retention,
            json.dumps(reuse_keys if request.reuse else []),
            *(part for pair in fields.items() for part in pair),
        )
        if outcome == "conflict" and not records.same(self.request(job_id), body):
            raise IdempotencyConflict(f"the key was used for another request, job {job_id}")
        if outcome == "full":
            raise TooManyQueued(self._settings.max_queued_per_user)
        return Submission(self.get(job_id), created=outcome in ("created", "cached"))

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
        return Waiting(self._redis, self._settings, self.crew)

    def _job(self, record: dict[str, str], position: int | None, reasons: Waiting) -> Job:
        if "summary" not in record:  # it was stored by an earlier version
            record["summary"] = records.summary_of(self.request(record["id"])).model_dump_json()
        waits = record["status"] == JobStatus.QUEUED
        return records.job(record, position, reasons.reason(record, position) if waits else None)

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

    def needing(self, dataset_id: str, owner: str) -> str | None:
        """Id of one of the owner's queued or running jobs that goes with an uploaded dataset, if any."""
        for status in (JobStatus.RUNNING, JobStatus.QUEUED):
            cursor: str | None = None
            while True:
                page = self.page(owner=owner, status=status, limit=200, cursor=cursor)
                for job in page.items:
                    if (job.request.data.model_extra or {}).get("dataset_id") == dataset_id:
                        return job.id
                cursor = page.next_cursor
                if cursor is None:
                    break
        return None

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
        outcome, artifact = self._run("delete", job_id, self._tombstone, secrets.token_hex(12))
        if outcome == "unknown":
            raise JobNotFound(job_id)
        if outcome == "unfinished":
            raise JobNotFinished(job_id)
        return artifact or None

    def events(self, job_id: str, after: str = "0", block_ms: int | None = None) -> list[Event]:
        """Events after the event id `after`; waits up to `block_ms` for the first."""
        return records.events_of(self._redis.xread({event_stream(job_id): after}, count=100, block=block_ms))

    # Live workers

    def announce(self, worker: str, facts: WorkerFacts | None = None) -> None:
        """Say that a worker process is alive, for a lease, and what it can do."""
        text = facts.model_dump_json() if facts else ""
        self._run("announce", worker, self._settings.lease_milliseconds, text)

    def retire(self, worker: str) -> None:
        """Say that a worker process is gone."""
        self._run("retire", worker)

    def crew(self) -> Crew:
        """The live workers, and what they say of themselves."""
        return Crew.read(self._run("crew"))

    def live_workers(self) -> int:
        """Worker processes that have announced themselves within their leases."""
        return self.crew().count

    def gauges(self) -> Gauges:
        """How the whole service is, in numbers."""
        return measure(self._redis, self._settings, self.live_workers)
