"""What workers announce, what they claim, and whose numbers a result is found by."""

from __future__ import annotations

import random
from typing import Any

import pytest
import redis

from dmft_schema import JobStatus
from jobs.settings import Settings
from jobs.store import JobStore
from jobs.workers import Crew, WorkerFacts, numerics_class
from tests.conftest import small_request

METHODS = ["dmft", "static_ntk"]
GB = 1e9


def facts(memory_gb: float = 8.0, **changes: Any) -> WorkerFacts:
    known: dict[str, Any] = {"device": "cpu", "slots": 1, "methods": METHODS, "numerics": "4"}
    return WorkerFacts(memory_bytes=memory_gb * GB, **(known | changes))


def submit(store: JobStore, owner: str = "ada", memory_gb: float | None = 1.0, **changes: Any) -> str:
    request = small_request(**({"reuse": False} | changes))
    bytes_ = None if memory_gb is None else memory_gb * GB
    return store.submit(request, owner, request_hash="h", memory_bytes=bytes_).job.id


def test_what_is_announced_holds_for_a_lease(store: JobStore, redis_client: redis.Redis) -> None:
    store.announce("small", facts(1))
    store.announce("large", facts(64, device="cuda:1"))
    store.announce("of old")
    crew = store.crew()
    assert (crew.count, {worker.device for worker in crew.facts}) == (3, {"cpu", "cuda:1"})
    assert not crew.all_known
    store.retire("of old")
    assert store.crew().all_known
    redis_client.zadd("dmft:workers", {"large": 1})
    assert [worker.memory_bytes for worker in store.crew().facts] == [GB]
    store.announce("small", facts(2))
    assert [worker.memory_bytes for worker in store.crew().facts] == [2 * GB]
    assert redis_client.hkeys("dmft:workers:facts") == ["small"], "who fell silent long ago is forgotten"


def test_facts_of_another_version_are_no_facts() -> None:
    assert Crew.read([2, '{"device": "cpu"}', facts().model_dump_json()]) == Crew(2, (facts(),))
    assert Crew.read([1, facts().model_dump_json()[:-1] + ', "more": 1}']).all_known


def test_users_are_not_told_where_workers_run() -> None:
    shown = facts(host="secret-host", pid=17).for_users()
    assert shown == {
        "device": "cpu", "slots": 1, "methods": METHODS, "numerics": "4", "torch": "", "version": "",
        "memory_gb": 8.0,
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_workers_claim_what_fits_them_and_nothing_that_fits_is_passed_over(
    redis_client: redis.Redis, settings: Settings, seed: int
) -> None:
    """Against the rule itself: of the users with a job that fits and room under their cap, the one with the
    fewest running, then the one served longest ago; of that user's, the first that fits."""
    store, chance = JobStore(redis_client, settings), random.Random(seed)
    queues: dict[str, list[tuple[str, float, str]]] = {"ada": [], "bob": [], "cyd": []}
    running, served = dict.fromkeys(queues, 0), dict.fromkeys(queues, 0)
    for turn in range(1, 120):
        if chance.random() < 0.5:
            owner, memory = chance.choice(list(queues)), chance.choice([0.5, 3.0, 20.0])
            method = chance.choice(METHODS)
            job = submit(store, owner, memory, method={"name": method})
            queues[owner].append((job, memory, method))
            continue
        worker = facts(chance.choice([1.0, 4.0, 64.0]), methods=chance.choice([METHODS, ["dmft"]]))
        able = {
            owner: next((job for job in queue if worker.takes(job[2], job[1] * GB)), None)
            for owner, queue in queues.items()
            if running[owner] < settings.max_running_per_user
        }
        first = min(
            (owner for owner, job in able.items() if job),
            key=lambda o: (running[o], served[o], o),
            default=None,
        )
        claim = store.claim("w", worker)
        assert (claim and claim.id) == (first and able[first] and able[first][0])  # type: ignore[index]
        if claim is None or first is None:
            continue
        queues[first] = [job for job in queues[first] if job[0] != claim.id]
        served[first] = turn
        if chance.random() < 0.5:
            store.finish(claim, JobStatus.FAILED)
        else:
            running[first] += 1


def test_a_long_queue_of_what_does_not_fit_hides_nothing(store: JobStore, settings: Settings) -> None:
    for _ in range(49):
        submit(store, memory_gb=20)
    last = submit(store, memory_gb=2)
    claim = store.claim("w", facts(4))
    assert claim is not None
    assert claim.id == last
    assert store.claim("w", facts(4)) is None


def test_a_record_of_an_earlier_version_fits_every_worker(store: JobStore) -> None:
    job = submit(store, memory_gb=None)
    store._redis.hdel(f"dmft:job:{job}", "method")
    claim = store.claim("w", facts(0.001, methods=[]))
    assert claim is not None
    assert claim.id == job


def test_the_reason_to_wait_is_that_no_live_worker_can_take_it(store: JobStore) -> None:
    job = submit(store, memory_gb=20)
    assert "no live worker: start one" in str(store.get(job).waiting_reason)
    store.announce("w", facts(12.8))
    assert store.get(job).waiting_reason == (
        "no live worker has room for it: it needs about 20 GB, the most that one gives a solve is 13 GB"
    )
    store.announce("large", facts(64, methods=["dmft"]))
    assert "no live worker has room" in str(store.get(job).waiting_reason)
    store.announce("large", facts(64))
    assert store.get(job).waiting_reason == "behind 0 of your jobs, and those of other users"
    for worker in ("w", "large"):
        store.announce(worker, facts(64, methods=["dmft"]))
    assert store.get(job).waiting_reason == "no live worker knows the method static_ntk"


def hash_of(numerics: str) -> str:
    return small_request().content_hash(*numerics.split("/"))


def ask(store: JobStore, first: str, *others: str) -> Any:
    return store.submit(
        small_request(),
        "ada",
        request_hash=hash_of(first),
        numerics=first,
        other_hashes=[hash_of(other) for other in others],
    ).job


def test_a_result_is_found_by_the_numbers_of_the_worker_that_made_it(store: JobStore) -> None:
    """Not by those that the submission reckoned with."""
    job = ask(store, "4/cpu", "4/cuda")
    claim = store.claim("w", facts(device="cuda:0"))
    assert claim is not None
    store.finish(claim, JobStatus.SUCCEEDED, artifact="on the gpu")
    assert store.get(job.id).request_hash == hash_of("4/cuda")
    assert not ask(store, "4/cpu").cached, "a CPU's numbers are asked for"
    found = ask(store, "4/cuda")
    assert (found.cached, store.artifact(found.id)) == (True, "on the gpu")
    assert ask(store, "5/cuda", "4/cuda").cached, "one that any live worker might have made"
    assert not ask(store, "5/cuda").cached, "older numerics"


def test_results_of_an_earlier_versions_records_are_found_and_let_go(
    store: JobStore, redis_client: redis.Redis
) -> None:
    """They call the reuse key request_hash."""
    job = ask(store, "4/cpu")
    claim = store.claim("w", facts())
    assert claim is not None
    key = f"dmft:job:{job.id}"
    redis_client.hset(key, "request_hash", redis_client.hget(key, "reuse_key"))
    redis_client.hdel(key, "reuse_key", "numerics", "memory", "method")
    store.finish(claim, JobStatus.SUCCEEDED, artifact="old")
    assert store.get(job.id).request_hash == hash_of("4/cpu")
    again = ask(store, "4/cpu")
    assert again.cached
    assert store.delete(job.id) is None
    assert ask(store, "4/cpu").cached


def test_classes_of_numerics() -> None:
    assert numerics_class("4", "cuda:3") == "4/cuda"
    assert facts(device="cpu").numerics_class == "4/cpu"
