"""The lists by owner, status and tag say after every transition what the records say."""

from __future__ import annotations

import json
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha1
from itertools import product
from typing import Any

import pytest
import redis

from dmft_schema import JobStatus
from jobs.listing import LISTS
from jobs.settings import Settings
from jobs.store import JobStore
from tests.conftest import small_request
from tests.jobs.test_repeats import OWNERS, TAGS, Life, Twice

Lists = dict[str, dict[str, float]]
STATUSES = (None, *JobStatus)


def kept(client: Any) -> Lists:
    return {key: dict(client.zrange(key, 0, -1, withscores=True)) for key in client.scan_iter(LISTS)}


def recomputed(client: Any) -> Lists:
    """What the lists must be, from nothing but the records."""
    lists: Lists = defaultdict(dict)
    for key in client.scan_iter("dmft:job:*"):
        job = client.hgetall(key)
        tags = {"", *(sha1(tag.encode()).hexdigest() for tag in json.loads(job["tags"]))}
        for tag, owner in product(tags, ("", job["owner"])):
            lists[f"dmft:list:{job['status']}:{tag}:{owner}"][job["id"]] = float(job["seq"])
    return dict(lists)


def filtered(client: Any, owner: str | None, status: JobStatus | None, tag: str | None) -> list[str]:
    """Ids of the jobs that a list with these filters must show, newest first, by looking at every record."""
    records = [client.hgetall(key) for key in client.scan_iter("dmft:job:*")]
    shown = [
        job
        for job in records
        if owner in (None, job["owner"])
        and status in (None, job["status"])
        and (tag is None or tag in json.loads(job["tags"]))
    ]
    return [job["id"] for job in sorted(shown, key=lambda job: -int(job["seq"]))]


def listed(store: JobStore, limit: int, **filters: Any) -> list[str]:
    """Ids on all pages."""
    ids: list[str] = []
    cursor = None
    while True:
        page = store.page(limit=limit, cursor=cursor, **filters)
        assert len(page.items) <= limit
        ids += [job.id for job in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return ids


def check_pages(store: JobStore, client: Any, limit: int) -> None:
    for owner, status, tag in product((None, OWNERS[0]), STATUSES, (None, *TAGS, "nobody's")):
        expected = filtered(client, owner, status, tag)
        assert listed(store, limit, owner=owner, status=status, tag=tag) == expected, (owner, status, tag)


@pytest.fixture
def twice(redis_client: redis.Redis, settings: Settings) -> Twice:
    return Twice(redis_client, settings.model_copy(update={"lease_seconds": 600.0}))


@pytest.mark.parametrize("seed", range(4))
def test_lists_are_what_the_records_say_all_through_a_life(twice: Twice, seed: int) -> None:
    life = Life(twice, 200 + seed)
    for _ in range(70):
        life.step()
        assert kept(twice.client) == recomputed(twice.client)
    check_pages(JobStore(twice.client, twice._settings), twice.client, limit=3)
    for script, arguments, _ in life.chance.sample(twice.calls, len(twice.calls)):
        twice.replay(script, arguments)
        assert kept(twice.client) == recomputed(twice.client), script
    # All of them: a refused submission that comes again when its refusal is forgotten is one like any other.
    for job_id in twice.client.zrange("dmft:jobs", 0, -1):
        if twice.client.hget(f"dmft:job:{job_id}", "status") == "queued":
            twice.cancel(job_id)
    for claim in life.held:
        twice.client.zadd("dmft:leases", {claim.id: 1}, xx=True)
    while twice.client.zcard("dmft:leases"):
        twice.client.zadd("dmft:leases", dict.fromkeys(twice.client.zrange("dmft:leases", 0, -1), 1))
        twice.reap()
        while (again := twice.claim("w")) is not None:
            twice.finish(again, JobStatus.CANCELLED)
    for job_id in twice.client.zrange("dmft:jobs", 0, -1):
        twice.delete(job_id)
    assert kept(twice.client) == {}, "no list outlives its jobs"


def lived(store: JobStore) -> None:
    """Jobs of every status."""
    for number in range(12):
        owner, tags = OWNERS[number % 3], list(TAGS[: number % 3])
        store.submit(small_request(reuse=False, tags=tags), owner, request_hash="h")
    for end in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, None):
        claim = store.claim("w")
        assert claim is not None
        if end:
            store.finish(claim, end)


def as_an_earlier_version_left_it(client: Any) -> None:
    client.delete(*client.scan_iter(LISTS))
    for key in client.scan_iter("dmft:job:*"):
        client.hdel(key, "listed", "summary")


def test_a_folder_without_lists_gets_them(
    store: JobStore, redis_client: redis.Redis, settings: Settings
) -> None:
    lived(store)
    as_an_earlier_version_left_it(redis_client)
    upgraded = JobStore(redis_client, settings)
    check_pages(upgraded, redis_client, limit=2)
    assert kept(redis_client) == recomputed(redis_client)
    assert all(redis_client.hexists(key, "summary") for key in redis_client.scan_iter("dmft:job:*"))
    assert not upgraded.mend_lists(), "it is built once"


def test_lists_may_be_built_beside_running_servers(
    store: JobStore, redis_client: redis.Redis, settings: Settings
) -> None:
    lived(store)
    as_an_earlier_version_left_it(redis_client)
    stores = [JobStore(redis_client, settings) for _ in range(4)]

    def work(number: int) -> None:
        life = Life(stores[number], number)  # type: ignore[arg-type]
        stores[number].client = redis_client  # type: ignore[attr-defined]
        stores[number].mend_lists()
        for _ in range(30):
            life.step()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert kept(redis_client) == recomputed(redis_client)


def test_what_a_version_without_lists_does_beside_is_mended(
    store: JobStore, redis_client: redis.Redis, settings: Settings
) -> None:
    """It takes, ends and removes jobs, and leaves the lists as they are."""
    lived(store)
    assert not store.mend_lists()
    by_status = {status: listed(store, 50, owner=None, status=status, tag=None) for status in JobStatus}
    waiting, running = by_status[JobStatus.QUEUED][0], by_status[JobStatus.RUNNING][0]
    gone = by_status[JobStatus.FAILED][0]
    owner = redis_client.hget(f"dmft:job:{waiting}", "owner")
    redis_client.zrem(f"dmft:queue:{owner}", waiting)
    redis_client.zadd("dmft:leases", {waiting: 2e12})
    redis_client.hset(f"dmft:job:{waiting}", "status", "running")
    redis_client.zrem("dmft:leases", running)
    redis_client.hset(f"dmft:job:{running}", "status", "succeeded")
    redis_client.zrem("dmft:jobs", gone)
    redis_client.delete(f"dmft:job:{gone}")
    check_pages_show_no_wrong_status(store)
    assert JobStore(redis_client, settings).mend_lists()
    check_pages(store, redis_client, limit=50)
    assert kept(redis_client) == recomputed(redis_client)


def check_pages_show_no_wrong_status(store: JobStore) -> None:
    for status in JobStatus:
        assert all(job.status is status for job in store.page(status=status).items)
