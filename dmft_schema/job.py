"""A job as the API shows it, its progress, and errors as problem+json (RFC 9457)."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from dmft_schema.base import OpenModel
from dmft_schema.summary import RequestSummary


class JobStatus(StrEnum):
    """Life of a job. The last three never change."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


class Progress(OpenModel):
    """How far a running solve is."""

    fraction: float = 0.0
    step: int = 0
    steps: int = 0
    message: str = ""
    eta_seconds: float | None = None
    loss: float | None = None
    basis_size: int | None = Field(None, description="Largest number of revealed directions.")


class JobError(OpenModel):
    """Why a job failed: a code to branch on, what happened, and what the user can do."""

    code: str
    message: str
    advice: str = ""
    step: int | None = Field(None, description="Training step at which it happened, if any.")


class Job(OpenModel):
    """One solve on the server."""

    id: str
    status: JobStatus
    name: str | None = None
    owner: str = Field(description="The owner's name, a label.")
    owner_id: str = Field("", description="The owner's id, which the solve belongs to.")
    tags: list[str] = Field(default=[])
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    attempts: int = 0
    cancel_requested: bool = False
    cached: bool = False
    queue_position: int | None = None
    waiting_reason: str | None = None
    progress: Progress = Progress()
    request: RequestSummary = Field(
        RequestSummary(), description="A summary; the whole request is at `links.request`."
    )
    request_hash: str
    error: JobError | None = None
    links: dict[str, str] = Field(default={})


class JobPage(OpenModel):
    """One page of GET /v1/solves, newest first."""

    items: list[Job]
    next_cursor: str | None = None


class FieldError(OpenModel):
    loc: list[str | int]
    msg: str


class ProblemDetail(OpenModel):
    """The body of every 4xx and 5xx answer (application/problem+json)."""

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    request_id: str = ""
    errors: list[FieldError] = Field(default=[])
    error_count: int = Field(0, description="How many there are; `errors` names the first 20.")


class Event(OpenModel):
    """One server-sent event: `kind` is progress or status, `data` a Progress or a Job summary."""

    id: str
    kind: str
    data: dict[str, Any]
