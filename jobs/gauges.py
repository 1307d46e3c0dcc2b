"""How the whole service is, in numbers: for those who watch it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dmft_schema import JobStatus
from jobs.settings import Settings


@dataclass(frozen=True)
class Gauges:
    """As of one moment.

    Attributes:
        jobs: how many there are of each status.
        oldest_queued_seconds: how long the job that was queued first has been there; 0 if none is.
        overdue: running jobs whose worker has been silent for a lease; a worker that lives takes them back.
        workers: live worker processes.
        redis_bytes: memory of Redis.
        free_bytes: room on the disks, by what lies there: data, artifacts.
    """

    jobs: dict[str, int]
    oldest_queued_seconds: float
    overdue: int
    workers: int
    redis_bytes: int
    free_bytes: dict[str, int]


def measure(client: Any, settings: Settings, live_workers: Callable[[], int]) -> Gauges:
    """Look. A few counts, however many jobs there are.

    Raises:
        redis.RedisError: the store does not answer.
    """
    seconds, micro = client.time()
    now = seconds * 1000 + micro // 1000
    lists = {status: f"dmft:list:{status.value}::" for status in JobStatus}
    pipe = client.pipeline(transaction=False)
    for key in lists.values():
        pipe.zcard(key)
    pipe.zrange(lists[JobStatus.QUEUED], 0, 0)
    pipe.zcount("dmft:leases", "-inf", now)
    pipe.info("memory")
    *counts, oldest, overdue, memory = pipe.execute()
    created = client.hget(f"dmft:job:{oldest[0]}", "created_at") if oldest else None
    return Gauges(
        jobs={status.value: count for status, count in zip(lists, counts, strict=True)},
        oldest_queued_seconds=max(0.0, (now - int(created)) / 1000) if created else 0.0,
        overdue=overdue,
        workers=live_workers(),
        redis_bytes=int(memory["used_memory"]),
        free_bytes={"data": _free(settings.data_dir), "artifacts": _free(settings.artifacts)},
    )


def _free(folder: os.PathLike[str]) -> int:
    try:
        disk = os.statvfs(folder)
    except FileNotFoundError:  # nothing was ever written there
        return 0
    return disk.f_bavail * disk.f_frsize
