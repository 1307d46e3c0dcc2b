"""What routes work with: made once, handed to each by a dependency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import redis.asyncio
from celery import Celery
from fastapi import Depends, Request

from dmft_schema import Job
from jobs.artifacts import Artifacts
from jobs.connection import connect
from jobs.errors import JobExpired, JobNotFound
from jobs.keys import KeyStore, User
from jobs.settings import Settings
from jobs.store import JobStore
from worker.app import create_app as create_celery


@dataclass
class Services:
    """The store and its neighbours."""

    settings: Settings
    store: JobStore
    keys: KeyStore
    artifacts: Artifacts
    celery: Celery
    streams: Any

    @classmethod
    def connect(cls, settings: Settings) -> Services:
        """Connections are made on first use."""
        client = connect(settings.redis_url)
        return cls(
            settings=settings,
            store=JobStore(client, settings),
            keys=KeyStore(client),
            artifacts=Artifacts.of(settings),
            celery=create_celery(settings),
            # Event streams wait for long: a connection each on the event loop, not a thread each.
            streams=redis.asyncio.Redis.from_url(
                settings.redis_url, decode_responses=True, socket_timeout=10
            ),
        )

    def job_of(self, job_id: str, caller: User) -> Job:
        """The caller's job.

        Raises:
            JobExpired: it was the caller's, until its retention ended.
            JobNotFound: no such job, or another user's: the two look the same from outside.
        """
        try:
            job = self.store.get(job_id)
        except JobExpired as gone:
            if gone.owner != caller.id and not caller.is_admin:
                raise JobNotFound(job_id) from None
            raise
        if job.owner_id != caller.id and not caller.is_admin:
            raise JobNotFound(job_id)
        return job


def services(request: Request) -> Services:
    """The application's services."""
    found: Services = request.app.state.services
    return found


ServicesDep = Annotated[Services, Depends(services)]
