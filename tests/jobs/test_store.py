"""The job store's transitions against a real Redis."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from dmft_schema import Job, JobError, JobStatus, Progress, SolveRequest
from jobs.errors import IdempotencyConflict, JobExpired, JobNotFinished, JobNotFound, LeaseLost, TooManyQueued
from jobs.settings import Settings
from jobs.store import Claim, JobStore
from tests.conftest import small_request

ERROR = JobError(code="solver_died", message="it died", advice="try again")


def submit(store: JobStore, owner: str = "ada", hash_: str = "h", **changes: object) -> Job:
    changes.setdefault("reuse", False)
    return store.submit(small_request(**changes), owner, request_hash=hash_).job


def claimed(store: JobStore, worker: str = "w") -> Claim:
    claim = store.claim(worker)
    assert claim is not None
    return claim


def expire_lease(redis_client: redis.Redis, job_id: str) -> None:
    redis_client.zadd("dmft:leases", {job_id: 1})


def statuses(store: JobStore, job_id: str) -> list[str]:
    return [e.data["status"] for e in store.events(job_id) if e.kind == "status" and "attempts" in e.data]


def test_life_of_a_job(store: JobStore) -> None:
    job = submit(store, name="first", tags=["a", "b"])
    assert (job.status, job.owner, job.name, job.tags) == ("queued", "ada", "first", ["a", "b"])
    assert "no live worker" in (job.waiting_reason or "")

    claim = claimed(store)
    assert claim.id == job.id
    assert claim.request == SolveRequest.model_validate_json(store.request(job.id) or "")
    running = store.get(job.id)
    assert running.status == "running"
    assert running.attempts == 1
    assert running.started_at is not None

    assert store.beat(claim, Progress(fraction=0.5, step=5, steps=10)) is False
    assert store.get(job.id).progress.step == 5

    store.finish(claim, JobStatus.SUCCEEDED, artifact="s_1.1")
    done = store.get(job.id)
    assert done.status == "succeeded"
    assert done.finished_at is not None
    assert done.expires_at is not None
    assert done.expires_at > done.finished_at
    assert set(done.links) == {"self", "request", "events", "cancel", "result", "npz"}
    assert statuses(store, job.id) == ["queued", "running", "succeeded"]


def test_unknown_job(store: JobStore) -> None:
    for call in (store.get, store.cancel, store.delete, store.artifact):
        with pytest.raises(JobNotFound):
            call("s_none")


def test_final_status_never_changes(store: JobStore) -> None:
    job = submit(store)
    claim = claimed(store)
    store.finish(claim, JobStatus.FAILED, ERROR)
    for transition in (
        lambda: store.finish(claim, JobStatus.SUCCEEDED, artifact="x"),
        lambda: store.release(claim),
        lambda: store.attempt_failed(claim, ERROR),
        lambda: store.beat(claim),
    ):
        with pytest.raises(LeaseLost):
            transition()
    assert store.cancel(job.id).status == "failed"
    assert store.get(job.id).error == ERROR


def test_finish_refuses_a_status_that_is_not_final(store: JobStore) -> None:
    submit(store)
    with pytest.raises(ValueError, match="not a final status"):
        store.finish(claimed(store), JobStatus.QUEUED)


def test_cancel_queued_ends_at_once(store: JobStore) -> None:
    job = submit(store)
    assert store.cancel(job.id).status == "cancelled"
    assert store.claim("w") is None


def test_cancel_running_is_asked_and_confirmed(store: JobStore) -> None:
    job = submit(store)
    claim = claimed(store)
    asked = store.cancel(job.id)
    assert (asked.status, asked.cancel_requested) == ("running", True)
    store.cancel(job.id)
    requests = [e for e in store.events(job.id) if e.data.get("cancel_requested")]
    assert len(requests) == 1
    assert store.beat(claim) is True
    store.finish(claim, JobStatus.CANCELLED, artifact="kept")
    assert store.get(job.id).status == "cancelled"


def test_expired_lease_requeues_and_fences_the_old_holder(store: JobStore, redis_client: redis.Redis) -> None:
    job = submit(store)
    store.reap()  # notes the server's run id
    stale = claimed(store, "frozen")
    expire_lease(redis_client, job.id)
    reaped = store.reap()
    assert (reaped.expired, reaped.artifacts) == (1, [f"{job.id}.{stale.epoch}"])
    assert store.get(job.id).status == "queued"
    fresh = claimed(store, "healthy")
    assert fresh.epoch != stale.epoch
    for transition in (
        lambda: store.beat(stale),
        lambda: store.finish(stale, JobStatus.SUCCEEDED, artifact="wrong"),
        lambda: store.release(stale),
        lambda: store.attempt_failed(stale, ERROR),
    ):
        with pytest.raises(LeaseLost):
            transition()
    store.finish(fresh, JobStatus.SUCCEEDED, artifact="right")
    assert store.artifact(job.id) == "right"
    assert store.get(job.id).attempts == 2


def test_lease_that_is_renewed_is_not_reaped(store: JobStore) -> None:
    submit(store)
    claim = claimed(store)
    store.beat(claim)
    assert store.reap().expired == 0


def test_last_attempt_fails_the_job(store: JobStore, redis_client: redis.Redis) -> None:
    job = submit(store)
    store.reap()
    for attempt in (1, 2, 3):
        claimed(store)
        assert store.get(job.id).attempts == attempt
        expire_lease(redis_client, job.id)
        store.reap()
    failed = store.get(job.id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.code == "worker_lost"
    assert failed.error.advice


def test_dead_solver_is_tried_again_then_fails(store: JobStore) -> None:
    job = submit(store)
    outcomes = [store.attempt_failed(claimed(store), ERROR) for _ in range(3)]
    assert outcomes == [JobStatus.QUEUED, JobStatus.QUEUED, JobStatus.FAILED]
    assert store.get(job.id).error == ERROR


def test_cancelled_job_is_not_tried_again(store: JobStore) -> None:
    job = submit(store)
    claim = claimed(store)
    store.cancel(job.id)
    assert store.attempt_failed(claim, ERROR) is JobStatus.CANCELLED


def test_release_does_not_count_the_attempt(store: JobStore) -> None:
    job = submit(store)
    for _ in range(5):
        store.release(claimed(store))
    released = store.get(job.id)
    assert (released.status, released.attempts) == ("queued", 0)


def test_release_of_a_cancelled_job_ends_it(store: JobStore) -> None:
    job = submit(store)
    claim = claimed(store)
    store.cancel(job.id)
    store.release(claim)
    assert store.get(job.id).status == "cancelled"


def test_restart_of_redis_renews_leases_first(store: JobStore, redis_client: redis.Redis) -> None:
    job = submit(store)
    claim = claimed(store)
    redis_client.set("dmft:run_id", "of the server before")
    expire_lease(redis_client, job.id)
    assert store.reap().expired == 0
    store.beat(claim)


def test_many_claimers_few_jobs(store: JobStore, settings: Settings) -> None:
    """24 claimers at once for 4 jobs of 4 users: each job is taken once."""
    jobs = {submit(store, owner=f"user{i}").id for i in range(4)}
    barrier = threading.Barrier(24)

    def take(number: int) -> Claim | None:
        barrier.wait()
        return store.claim(f"w{number}")

    with ThreadPoolExecutor(24) as pool:
        claims = [claim for claim in pool.map(take, range(24)) if claim is not None]
    assert sorted(claim.id for claim in claims) == sorted(jobs)


def test_claims_alternate_between_users(store: JobStore) -> None:
    """Thirty jobs of one user do not delay another's three."""
    for _ in range(30):
        submit(store, owner="busy")
    for _ in range(3):
        submit(store, owner="quick")
    order = []
    for _ in range(6):
        claim = claimed(store)
        order.append(store.get(claim.id).owner)
        store.finish(claim, JobStatus.SUCCEEDED, artifact=claim.id)
    assert order.count("quick") == 3


def test_running_cap_and_why_a_job_waits(store: JobStore) -> None:
    jobs = [submit(store) for _ in range(4)]
    store.announce("w")
    first, _ = claimed(store), claimed(store)
    assert store.claim("w") is None
    waiting = store.get(jobs[2].id)
    assert waiting.queue_position == 0
    assert waiting.waiting_reason == "over your running limit of 2"
    store.finish(first, JobStatus.SUCCEEDED, artifact="a")
    assert store.get(jobs[3].id).waiting_reason == "behind 1 of your jobs, and those of other users"
    assert claimed(store).id == jobs[2].id


def test_priority_then_first_come(store: JobStore) -> None:
    low, first, second = submit(store, priority=-1), submit(store), submit(store)
    urgent = submit(store, priority=5)
    order = []
    for _ in range(4):
        claim = claimed(store)
        order.append(claim.id)
        store.finish(claim, JobStatus.SUCCEEDED, artifact=claim.id)
    assert order == [urgent.id, first.id, second.id, low.id]


def test_requeued_job_keeps_its_place(store: JobStore) -> None:
    first, _ = submit(store), submit(store)
    claim = claimed(store)
    store.release(claim)
    assert claimed(store).id == first.id


def test_queue_limit_keeps_what_was_accepted(store: JobStore) -> None:
    for _ in range(50):
        submit(store)
    with pytest.raises(TooManyQueued, match="limit: 50"):
        submit(store)
    assert submit(store, owner="other").status == "queued"
    assert len(store.page(owner="ada", limit=200).items) == 50


def test_idempotency_key_belongs_to_its_owner(store: JobStore) -> None:
    request = small_request()

    def call(owner: str, steps: int = 5) -> tuple[str, bool]:
        body = request if steps == 5 else small_request(training={"steps": steps})
        submission = store.submit(body, owner, request_hash=str(steps), idempotency_key="k")
        return submission.job.id, submission.created

    first, created = call("ada")
    assert created
    assert call("ada") == (first, False)
    assert call("bob")[0] != first
    with pytest.raises(IdempotencyConflict, match=first):
        call("ada", steps=6)


def test_result_is_reused_and_its_files_outlive_the_first_job(store: JobStore) -> None:
    first = submit(store, hash_="same")
    store.finish(claimed(store), JobStatus.SUCCEEDED, artifact="files")
    again = submit(store, hash_="same", reuse=True)
    assert (again.status, again.cached) == ("succeeded", True)
    assert store.artifact(again.id) == "files"
    assert submit(store, hash_="same", reuse=False).status == "queued"
    assert submit(store, hash_="different", reuse=True).status == "queued"

    assert store.delete(first.id) is None  # the second still holds the files
    third = submit(store, hash_="same", reuse=True)
    assert third.cached
    assert store.delete(again.id) is None
    assert store.delete(third.id) == "files"
    assert submit(store, hash_="same", reuse=True).status == "queued"


def test_a_result_is_reused_across_users_only_if_configured(
    store: JobStore, settings: Settings, redis_client: redis.Redis
) -> None:
    submit(store, hash_="same")
    store.finish(claimed(store), JobStatus.SUCCEEDED, artifact="files")
    theirs = submit(store, owner="bob", hash_="same", reuse=True)
    assert (theirs.status, theirs.cached, theirs.request_hash) == ("queued", False, "same")
    store.cancel(theirs.id)

    shared = JobStore(redis_client, settings.model_copy(update={"reuse_across_users": True}))
    submit(shared, hash_="same")
    shared.finish(claimed(shared), JobStatus.SUCCEEDED, artifact="more")
    assert submit(shared, owner="bob", hash_="same", reuse=True).cached


def test_a_record_of_the_time_before_ids_is_read(store: JobStore, redis_client: redis.Redis) -> None:
    job = submit(store, name="old")
    redis_client.hset(f"dmft:job:{job.id}", "request_hash", "h")
    redis_client.hdel(f"dmft:job:{job.id}", "owner_name", "content_hash")
    old = store.get(job.id)
    assert (old.owner, old.owner_id, old.request_hash) == ("ada", "ada", "h")
    assert [found.id for found in store.page(owner="ada").items] == [job.id]


def test_failed_result_is_not_reused(store: JobStore) -> None:
    submit(store, hash_="same")
    store.finish(claimed(store), JobStatus.FAILED, ERROR, artifact="partial")
    assert submit(store, hash_="same", reuse=True).status == "queued"


def test_delete_only_when_finished(store: JobStore) -> None:
    job = submit(store)
    with pytest.raises(JobNotFinished):
        store.delete(job.id)
    store.cancel(job.id)
    store.delete(job.id)
    with pytest.raises(JobNotFound):
        store.get(job.id)
    assert store.page(owner="ada").items == []


def test_retention_ends(store: JobStore, redis_client: redis.Redis) -> None:
    job = submit(store)
    store.finish(claimed(store), JobStatus.SUCCEEDED, artifact="old")
    redis_client.zadd("dmft:expiring", {job.id: 1})
    assert store.reap().artifacts == ["old"]
    with pytest.raises(JobExpired) as gone:
        store.get(job.id)
    assert gone.value.owner == "ada"
    assert store.page(owner="ada").items == []
    assert submit(store, reuse=True).status == "queued"


def test_pages_by_owner_status_and_tag(store: JobStore) -> None:
    mine = [submit(store, tags=["even" if i % 2 == 0 else "odd"]).id for i in range(7)]
    theirs = submit(store, owner="bob").id
    store.cancel(mine[0])
    newest_first = mine[::-1]

    pages, cursor = [], None
    while True:
        page = store.page(owner="ada", limit=3, cursor=cursor)
        pages.append([job.id for job in page.items])
        cursor = page.next_cursor
        if cursor is None:
            break
    assert pages == [newest_first[:3], newest_first[3:6], newest_first[6:]]
    assert [j.id for j in store.page(owner="ada", status=JobStatus.CANCELLED).items] == [mine[0]]
    assert [j.id for j in store.page(owner="ada", tag="odd").items] == newest_first[1::2]
    assert {j.id for j in store.page(owner=None).items} == {*mine, theirs}


def test_events_resume_after_an_id(store: JobStore) -> None:
    job = submit(store)
    claim = claimed(store)
    for step in range(3):
        store.beat(claim, Progress(step=step, steps=3))
    events = store.events(job.id)
    assert [e.kind for e in events] == ["status", "status", "progress", "progress", "progress"]
    assert store.events(job.id, after=events[2].id) == events[3:]


def test_live_workers(store: JobStore, redis_client: redis.Redis) -> None:
    store.announce("a")
    store.announce("b")
    assert store.live_workers() == 2
    store.retire("a")
    redis_client.zadd("dmft:workers", {"b": 1})
    assert store.live_workers() == 0
