"""What the job store can refuse.

StoreError
  JobNotFound            no such job
    JobExpired           it was removed when its retention ended
  JobNotFinished         the job must reach a final status first
  IdempotencyConflict    the key was used for another request
  TooManyQueued          the user has as many waiting jobs as allowed
  LeaseLost              the job is no longer this worker's to touch
  ArtifactMissing        a file of a result or dataset is not there (any more)
  DatasetQuota           a user keeps as many datasets, or bytes of them, as allowed
  StorageFull            too little room on disk to take anything more
"""

from __future__ import annotations

from datetime import datetime


class StoreError(Exception):
    """Base of all refusals."""


class JobNotFound(StoreError):
    """No such job."""


class JobExpired(JobNotFound):
    """The job was removed when its retention ended."""

    def __init__(self, job_id: str, owner: str, at: datetime) -> None:
        super().__init__(job_id)
        self.owner = owner
        self.at = at


class JobNotFinished(StoreError):
    """The job must reach a final status first."""


class IdempotencyConflict(StoreError):
    """The idempotency key was used for another request."""


class TooManyQueued(StoreError):
    """The user has as many waiting jobs as allowed."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} jobs are waiting already (limit: {limit})")
        self.limit = limit


class LeaseLost(StoreError):
    """The job is no longer this worker's: it was requeued, finished or deleted meanwhile."""


class ArtifactMissing(StoreError):
    """A file of a result or dataset is not there (any more)."""


class DatasetQuota(StoreError):
    """A user keeps as many datasets, or bytes of them, as allowed."""


class StorageFull(StoreError):
    """Too little room is left on disk: what is stored can be read, nothing more is taken."""
