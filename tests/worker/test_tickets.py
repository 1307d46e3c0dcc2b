"""Tickets on real workers: each hears each one, so that nothing rests on the workers' own looking."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from dmft_schema import JobStatus
from jobs import tickets
from jobs.embedded_redis import EmbeddedRedis
from jobs.settings import Settings
from jobs.store import JobStore
from tests import waiting
from tests.conftest import slow_request, small_request

_UNLOOKING = """
import sys, worker.slots
worker.slots.LOOK_SECONDS = 3600.0
from worker.app import app
flags = ["-P", "threads", "-c", "1", "--without-gossip", "--without-mingle", "-n", sys.argv[1]]
app.worker_main(["worker", *flags])
"""


@contextmanager
def unlooking_worker(settings: Settings, name: str) -> Iterator[None]:
    """A worker whose slots do nothing but what tickets say."""
    environment = os.environ | {
        "DMFT_REDIS_URL": settings.redis_url,
        "DMFT_DATA_DIR": str(settings.data_dir),
        "DMFT_LEASE_SECONDS": "600",
        "DMFT_THREADS": "1",
        "DMFT_LOG_FILE": str(settings.data_dir / f"{name}.log"),
    }
    command = [sys.executable, "-c", _UNLOOKING, f"{name}@test"]
    process = subprocess.Popen(
        command, env=environment, cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
def test_tickets_alone_move_jobs_on_every_worker(
    store: JobStore, settings: Settings, redis_server: EmbeddedRedis, redis_client: redis.Redis
) -> None:
    app = tickets.sender(settings)
    with unlooking_worker(settings, "one"), unlooking_worker(settings, "two"):
        waiting.until(lambda: store.live_workers() == 2, 120)
        # One works on a long job; whichever it is, the other hears of the next ones.
        waiting.until(lambda: redis_client.pubsub_numpat() >= 2, 120)
        long = store.submit(slow_request(), "ada", request_hash="h").job
        assert tickets.send(app)
        waiting.running(store, long.id)
        for index in range(5):
            job = store.submit(small_request(reuse=False), f"user-{index}", request_hash="h").job
            assert tickets.send(app)
            assert waiting.final(store, job.id) is JobStatus.SUCCEEDED
        store.cancel(long.id)
        assert waiting.final(store, long.id) is JobStatus.CANCELLED
        assert not redis_client.exists("unacked", "dmft"), "tickets leave nothing behind"
