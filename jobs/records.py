"""What the store answers with, and the way from a job's Redis hash to the contract's Job."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from dmft_schema import Event, Job, JobError, JobStatus, Progress, RequestSummary, SolveRequest, large
from dmft_schema.summary import summarise
from jobs.settings import Settings


@dataclass(frozen=True)
class Submission:
    """A job, and whether this call created it (False: an idempotent replay)."""

    job: Job
    created: bool


@dataclass(frozen=True)
class Claim:
    """A job in the hands of one worker. `epoch` fences it off from earlier holders.

    Attributes:
        id: the job's.
        epoch: grows with every claim; all that the holder does is checked against it.
        request: what to solve.
        reuse_key, content_hash: the result's, where this worker's numbers are not those that the record's
            were made for; else "".
    """

    id: str
    epoch: str
    request: SolveRequest
    reuse_key: str = ""
    content_hash: str = ""


@dataclass(frozen=True)
class Reaped:
    """What one round of the reaper found.

    Attributes:
        expired: jobs whose worker had fallen silent.
        waiting: jobs queued now.
        artifacts: files to remove.
        at: when it was, in milliseconds on the clock of Redis.
    """

    expired: int
    waiting: int
    artifacts: list[str]
    at: int


@dataclass(frozen=True)
class Tombstone:
    """What is kept of a removed job for a while.

    Attributes:
        owner: id of the user whose it was.
        why: `deleted` or `expired`.
        at: when it was removed.
    """

    owner: str
    why: str
    at: datetime

    @classmethod
    def read(cls, kept: str | None) -> Tombstone | None:
        """The tombstone that a script wrote; None if there is none (any more)."""
        if kept is None:
            return None
        words = json.loads(kept)
        return cls(words["owner"], words["why"], datetime.fromtimestamp(words["at"] / 1000, UTC))


def events_of(answer: Any) -> list[Event]:
    """The events in Redis' answer to XREAD of one job's stream."""
    return [
        Event(id=entry_id, kind=fields["kind"], data=json.loads(fields["data"]))
        for _, entries in answer or []
        for entry_id, fields in entries
    ]


def digest(text: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(text).hexdigest()


SHOWN = (
    *("id", "status", "name", "owner", "owner_name", "tags", "created_at", "started_at", "finished_at"),
    *("expires_at", "attempts", "cancel_requested", "cached", "progress", "request_hash", "content_hash"),
    *("error", "artifact", "summary", "memory", "method"),
)
"""The fields of a record that an answer is made of: all but the request, which may be megabytes."""


def _summary(request: SolveRequest) -> RequestSummary:
    parts = {name: getattr(request, name) for name in type(request).model_fields}
    data = parts.pop("data")
    plain = {name: p.model_dump(mode="json") if isinstance(p, BaseModel) else p for name, p in parts.items()}
    return summarise({"data": {name: getattr(data, name) for name in type(data).model_fields}, **plain})


def summary_of(stored: str | None) -> RequestSummary:
    """The summary of a stored request, of whichever version; empty if it is none."""
    try:
        return summarise(json.loads(stored or "{}"))
    except (ValueError, TypeError, LookupError, AttributeError):
        return RequestSummary()


def same(stored: str | None, body: bytes) -> bool:
    """Whether a stored request, of whichever version, asks for what `body` does, written by this one."""
    try:
        return stored is not None and _rewritten(stored) == body
    except ValueError:  # of a version that asks for things unknown here
        return False


def _rewritten(stored: str) -> bytes:
    return large.write(SolveRequest.model_validate(large.read(stored.encode())))


def reuse_key(owner: str, content_hash: str, settings: Settings) -> str:
    """By which a finished result of the same request is found, to be used again: by its owner, or by all."""
    return content_hash if settings.reuse_across_users else f"{owner}:{content_hash}"


def new(
    request: SolveRequest,
    body: bytes,
    *,
    owner_name: str,
    content_hash: str,
    reuse_key: str,
    numerics: str,
    memory_bytes: float | None,
) -> dict[str, str | bytes | int]:
    """The fields of a new record that are known before it is submitted."""
    needs = {} if memory_bytes is None else {"memory": math.ceil(memory_bytes)}
    return {
        "request": body,
        "summary": _summary(request).model_dump_json(),
        # Earlier versions stored the reuse key as request_hash.
        "reuse_key": reuse_key,
        "content_hash": content_hash,
        "numerics": numerics,
        "method": request.method.name,
        "owner_name": owner_name,
        "name": request.name or "",
        "tags": json.dumps(request.tags),
        "priority": request.priority,
        **needs,
    }


def _time(milliseconds: str | None) -> datetime | None:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC) if milliseconds else None


def job(record: dict[str, str], queue_position: int | None, waiting_reason: str | None) -> Job:
    """The Job that a record describes."""
    job_id = record["id"]
    created = _time(record["created_at"])
    assert created is not None
    base = f"/v1/solves/{job_id}"
    links = {"self": base, "request": f"{base}/request", "events": f"{base}/events"}
    links["cancel"] = f"{base}/cancel"
    if record.get("artifact"):
        links |= {"result": f"{base}/result", "npz": f"{base}/result.npz"}
    error, progress = record.get("error"), record.get("progress")
    return Job(
        id=job_id,
        status=JobStatus(record["status"]),
        name=record["name"] or None,
        # Records of earlier versions have neither owner_name nor content_hash.
        owner=record.get("owner_name") or record["owner"],
        owner_id=record["owner"],
        tags=json.loads(record["tags"]),
        created_at=created,
        started_at=_time(record.get("started_at")),
        finished_at=_time(record.get("finished_at")),
        expires_at=_time(record.get("expires_at")),
        attempts=int(record["attempts"]),
        cancel_requested=record["cancel_requested"] == "1",
        cached=record.get("cached") == "1",
        queue_position=queue_position,
        waiting_reason=waiting_reason,
        progress=Progress.model_validate_json(progress) if progress else Progress(),
        request=RequestSummary.model_validate_json(record["summary"]),
        request_hash=record.get("content_hash") or record["request_hash"],
        error=JobError.model_validate_json(error) if error else None,
        links=links,
    )
