"""Why queued jobs wait."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from typing import Any

from jobs import storage
from jobs.settings import Settings


class Waiting:
    """Says why jobs wait; made anew for each answer, since what many jobs wait for is asked for once."""

    def __init__(self, client: Any, settings: Settings, live_workers: Callable[[], int]) -> None:
        self._settings = settings
        self._live_workers = live_workers
        self._running = cache(lambda owner: client.scard(f"dmft:running:{owner}"))

    def reason(self, owner: str, position: int | None) -> str:
        """Why a job waits that stands at `position`, from 0, in its owner's queue."""
        if self._lacking is not None:
            return f"storage is full: {self._lacking}; it goes on when there is room"
        if self._workers == 0:
            return "no live worker: start one with `dmft worker`"
        cap = self._settings.max_running_per_user
        if self._running(owner) >= cap:
            return f"over your running limit of {cap}"
        return f"behind {position or 0} of your jobs, and those of other users"

    @cached_property
    def _lacking(self) -> str | None:
        return storage.shortage_of(self._settings)

    @cached_property
    def _workers(self) -> int:
        return self._live_workers()
