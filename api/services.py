"""What routes work with: made once, handed to each by a dependency."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import redis.asyncio
from celery import Celery
from fastapi import Depends, Request

from api.intake import Intake
from api.streams import Streams
from dmft_schema import Job
from jobs import keys, scripts, tickets
from jobs.artifacts import Artifacts
from jobs.connection import connect, connect_async
from jobs.errors import JobExpired, JobNotFound
from jobs.keys import KeyStore, User
from jobs.settings import Settings
from jobs.store import JobStore
from jobs.workers import Crew

_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LIVE_CONNECTIONS = 64
_LIVE_SECONDS = 3.0


@dataclass
class Services:
    """The store and its neighbours.

    Attributes:
        live: the store for what each request asks first, on the event loop: a store that has stopped
            holds up no thread.
        streams: waiting for events.
        intake: large bodies.
    """

    settings: Settings
    store: JobStore
    keys: KeyStore
    artifacts: Artifacts
    celery: Celery
    live: redis.asyncio.Redis
    ask_crew: Callable[[], Awaitable[Any]]
    streams: Streams
    intake: Intake

    @classmethod
    def connect(cls, settings: Settings) -> Services:
        """Connections are made on first use."""
        client = connect(settings.redis_url)
        live = connect_async(settings.redis_url, connections=_LIVE_CONNECTIONS, timeout=_LIVE_SECONDS)
        artifacts = Artifacts.of(settings)
        return cls(
            settings=settings,
            store=JobStore(client, settings),
            keys=KeyStore(client),
            artifacts=artifacts,
            ask_crew=live.register_script(scripts.source("crew")),
            celery=tickets.sender(settings),
            live=live,
            streams=Streams(settings.redis_url, settings.max_streams),
            intake=Intake(partial(cls.connect, settings), artifacts),
        )

    async def close(self) -> None:
        """Let go of connections and processes."""
        self.intake.close()
        await self.streams.close()
        await self.live.aclose()

    async def identify(self, key: str) -> User | None:
        """The user of an API key; None for an unknown or revoked one."""
        return await keys.identify(self.live, key)

    async def crew(self) -> Crew:
        """JobStore.crew, without a thread. Raises redis.RedisError if the store does not answer."""
        return Crew.read(await self.ask_crew())

    def job_of(self, job_id: str, caller: User) -> Job:
        """The caller's job.

        Raises:
            JobExpired: it was the caller's, until its retention ended.
            JobNotFound: no such job, or another user's: the two look the same from outside.
        """
        if not _JOB_ID.fullmatch(job_id):
            raise JobNotFound(job_id)
        try:
            job = self.store.get(job_id)
        except JobExpired as gone:
            if gone.owner != caller.id and not caller.is_admin:
                raise JobNotFound(job_id) from None
            raise
        if job.owner_id != caller.id and not caller.is_admin:
            raise JobNotFound(job_id)
        return job


async def services(request: Request) -> Services:
    """The application's services."""
    found: Services = request.app.state.services
    return found


ServicesDep = Annotated[Services, Depends(services)]
