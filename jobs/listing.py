"""Pages of jobs by owner, status and tag, from lists that the transitions keep (docs/jobs.md)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Literal

from dmft_schema import JobStatus
from jobs import records

_BATCH = 200
LISTS = "dmft:list:*"


class Listing:
    """The lists of jobs. Safe to share between threads."""

    def __init__(self, client: Any, run: Callable[..., Any]) -> None:
        """`run` runs a script of jobs/lua by its name."""
        self._redis = client
        self._run = run
        self._known_off: int | None = None

    def page(
        self, *, owner: str | None, status: JobStatus | None, tag: str | None, limit: int, cursor: str | None
    ) -> tuple[list[tuple[dict[str, str], int | None]], str | None]:
        """Records, newest first, each with its place in its owner's queue, and where the next page begins.

        Args:
            owner: id of the user whose jobs; None for everybody's.
            cursor: where the page before said that this one begins.
        """
        if (status or tag) and self._known_off is None:
            self.mend()
        below = f"({int(cursor)}" if cursor else "+inf"
        text = self._run("page", owner or "", status or "", tag or "", below, limit, *records.SHOWN)
        answer = json.loads(text)
        found = [
            (_record(values), None if position is False else position)
            for _, position, *values in answer["rows"]
        ]
        return found, answer["after"] or None

    def mend(self) -> bool:
        """Put jobs into the lists that a version without them stored or changed.

        A look at a few counts if there are none. May be repeated, and run beside anything.

        Returns:
            Whether the lists were off.
        """
        off, *_ = self._run("mend", 0, 0)
        if off == 0 or off == self._known_off:
            # What a mend could not mend is no reason to walk through all jobs again and again.
            self._known_off = off
            return False
        position = "0"
        while position:
            _, position, *without_summary = self._run("mend", position, _BATCH)
            for job_id in without_summary:
                self._summarise(job_id)
        self._drop_the_gone()
        self._known_off, *_ = self._run("mend", 0, 0)
        return True

    def _summarise(self, job_id: str) -> None:
        key = f"dmft:job:{job_id}"
        summary = records.summary_of(self._redis.hget(key, "request")).model_dump_json()
        self._run("describe", job_id, "summary", summary)

    def _drop_the_gone(self) -> None:
        """Jobs that a version without lists removed. Their ids never come again."""
        for key in self._redis.scan_iter(LISTS, count=1000):
            for ids in _batches(self._redis.zscan_iter(key)):
                pipe = self._redis.pipeline(transaction=False)
                for job_id in ids:
                    pipe.exists(f"dmft:job:{job_id}")
                gone = [job_id for job_id, there in zip(ids, pipe.execute(), strict=True) if not there]
                if gone:
                    self._redis.zrem(key, *gone)


def _record(values: list[str | Literal[False]]) -> dict[str, str]:
    found = zip(records.SHOWN, values, strict=True)
    return {name: value for name, value in found if value is not False}


def _batches(members: Iterator[tuple[str, float]]) -> Iterator[list[str]]:
    batch: list[str] = []
    for job_id, _ in members:
        batch.append(job_id)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
