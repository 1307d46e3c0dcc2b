"""Of jobs that are gone nothing is left, in Redis or on disk, but tombstones and words with an end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis

from dmft_schema import JobStatus
from jobs.artifacts import RESULT_JSON, RESULT_NPZ, Artifacts
from jobs.settings import Settings
from jobs.store import JobStore
from tests.jobs.test_repeats import Life, Twice

LASTING = {"dmft:seq", "dmft:servings", "dmft:served", "dmft:run_id"}
"""Counters, and one entry for each user."""


def finish_all(store: JobStore, client: Any) -> None:
    for job_id in client.zrange("dmft:jobs", 0, -1):
        store.cancel(job_id)
    while client.zcard("dmft:leases"):
        client.zadd("dmft:leases", dict.fromkeys(client.zrange("dmft:leases", 0, -1), 1))
        store.reap()


@pytest.mark.parametrize("end", ["delete", "retention"])
@pytest.mark.slow
def test_nothing_is_left(redis_client: redis.Redis, settings: Settings, tmp_path: Path, end: str) -> None:
    client: Any = redis_client
    store = Twice(client, settings.model_copy(update={"lease_seconds": 600.0}))
    artifacts = Artifacts(tmp_path)
    life = Life(store, 300)
    written: set[str] = set()
    for _ in range(40):
        life.step()
        for claim in life.held:
            if claim.epoch and f"{claim.id}.{claim.epoch}" not in written:
                name, folder = artifacts.new_result(claim.id, claim.epoch)
                written.add(name)
                (folder / RESULT_JSON).write_text("{}")
                (folder / RESULT_NPZ).write_text("npz")
                # What its worker removes itself when an attempt ends without a result is not this test's.
                if client.hget(f"dmft:job:{claim.id}", "status") != "running":
                    artifacts.remove_result(name)
    assert written
    finish_all(store, client)
    for job_id in client.zrange("dmft:jobs", 0, -1):
        if end == "delete":
            assert JobStatus(client.hget(f"dmft:job:{job_id}", "status")).final
            store.delete(job_id)
        else:
            client.zadd("dmft:expiring", {job_id: 1})
    while client.zcard("dmft:expiring") or client.scard("dmft:discarded"):
        for name in store.reap().artifacts:
            artifacts.remove_result(name)
            store.removed(name)
    left = {key for key in client.scan_iter("*") if client.pttl(key) < 0}
    assert left <= LASTING, left
    for key in client.scan_iter("dmft:gone:*"):
        assert client.strlen(key) < 250
    accepted = {call[4] for script, call, answer in store.calls if script == "finish" and answer == "ok"}
    assert not [name for name in accepted & written if (tmp_path / "results" / name).exists()]
    assert not [name for name in written if store.referenced(name)]
