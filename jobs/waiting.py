"""Why queued jobs wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, cached_property
from typing import Any

from jobs import storage
from jobs.settings import Settings
from jobs.workers import Crew


class Waiting:
    """Says why jobs wait; made anew for each answer, since what many jobs wait for is asked for once."""

    def __init__(self, client: Any, settings: Settings, crew: Callable[[], Crew]) -> None:
        self._settings = settings
        self._ask_crew = crew
        self._running = cache(lambda owner: client.scard(f"dmft:running:{owner}"))

    def reason(self, record: Mapping[str, str], position: int | None) -> str:
        """Why a job waits that stands at `position`, from 0, in its owner's queue."""
        owner = record["owner"]
        if self._lacking is not None:
            return f"storage is full: {self._lacking}; it goes on when there is room"
        if self._crew.count == 0:
            return "no live worker: start one with `dmft worker`"
        needed = record.get("memory")
        none_takes = self._crew.why_none_takes(record.get("method"), float(needed) if needed else None)
        if none_takes is not None:
            return none_takes
        cap = self._settings.max_running_per_user
        if self._running(owner) >= cap:
            return f"over your running limit of {cap}"
        return f"behind {position or 0} of your jobs, and those of other users"

    @cached_property
    def _lacking(self) -> str | None:
        return storage.shortage_of(self._settings)

    @cached_property
    def _crew(self) -> Crew:
        return self._ask_crew()
