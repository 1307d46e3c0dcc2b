"""Every transition may come again: the same answer, the same records, and nothing twice.

A client of Redis that hears no answer sends its call again; a frozen server may even take the first one
last. So each script is run twice wherever a random life of jobs calls it, and all of a life's calls are
played once more at its end.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from dmft_schema import JobError, JobStatus, Progress, SolveRequest
from jobs.embedded_redis import EmbeddedRedis
from jobs.errors import IdempotencyConflict, JobNotFinished, JobNotFound, LeaseLost, TooManyQueued
from jobs.settings import Settings
from jobs.store import Claim, JobStore
from tests.conftest import small_request

ERROR = JobError(code="solver_died", message="it died")
OWNERS = ("u_ada", "u_bob", "u_cyd")
TAGS = ("a", "b:c", "\u00e9 \u00fc")


def snapshot(client: redis.Redis) -> dict[str, Any]:
    """All that is stored of jobs. Of leases, whose they are: when they end moves on with the clock."""
    reads: dict[str, Any] = {
        "hash": client.hgetall,
        "string": client.get,
        "set": lambda key: sorted(client.smembers(key)),
        "zset": lambda key: client.zrange(key, 0, -1, withscores=key != "dmft:leases"),
        "stream": client.xrange,
    }
    return {key: reads[str(client.type(key))](key) for key in sorted(client.scan_iter("dmft:*"))}


class Twice(JobStore):
    """A store whose every script is sent again at once."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        super().__init__(client, settings)
        self.client = client
        self.calls: list[tuple[str, tuple[Any, ...], Any]] = []

    def _run(self, script: str, *arguments: Any) -> Any:
        answer = super()._run(script, *arguments)
        first = snapshot(self.client)
        again = super()._run(script, *arguments)
        assert _comparable(script, again) == _comparable(script, answer), script
        assert snapshot(self.client) == first, script
        self.calls.append((script, arguments, answer))
        return answer

    def replay(self, script: str, arguments: tuple[Any, ...]) -> Any:
        return JobStore._run(self, script, *arguments)


def _comparable(script: str, answer: Any) -> Any:
    # Files to remove are named in no order.
    return sorted(map(str, answer)) if script == "reap" else answer


class Life:
    """Jobs submitted, claimed, ended, cancelled and deleted at random."""

    def __init__(self, store: Twice, seed: int) -> None:
        self.store = store
        self.chance = random.Random(seed)
        self.ids: list[str] = []
        self.held: list[Claim] = []

    def step(self) -> None:
        acts = (self.submit, self.submit, self.claim, self.claim, self.use_claim, self.use_claim)
        self.chance.choice((*acts, self.cancel, self.delete, self.reap))()

    def submit(self) -> None:
        tags = self.chance.sample(TAGS, self.chance.randrange(3))
        request = small_request(reuse=self.chance.random() < 0.3, tags=tags)
        key = self.chance.choice((None, "one", "two"))
        try:
            found = self.store.submit(
                request, self.chance.choice(OWNERS), request_hash="h", idempotency_key=key
            )
        except (TooManyQueued, IdempotencyConflict, JobNotFound):  # another may delete it at once
            return
        self.ids.append(found.job.id)

    def claim(self) -> None:
        claim = self.store.claim("worker")
        if claim is not None:
            self.held.append(claim)

    def use_claim(self) -> None:
        if not self.held:
            return
        claim = self.chance.choice(self.held)
        succeeded, failed = JobStatus.SUCCEEDED, JobStatus.FAILED
        uses = (
            lambda: self.store.beat(claim, Progress(step=self.chance.randrange(9))),
            lambda: self.store.finish(claim, succeeded, artifact=f"{claim.id}.{claim.epoch}"),
            lambda: self.store.finish(claim, failed, ERROR),
            lambda: self.store.attempt_failed(claim, ERROR),
            lambda: self.store.release(claim),
        )
        try:
            self.chance.choice(uses)()
        except LeaseLost:
            self.held.remove(claim)

    def cancel(self) -> None:
        if self.ids:
            try:
                self.store.cancel(self.chance.choice(self.ids))
            except JobNotFound:
                return

    def delete(self) -> None:
        if self.ids:
            try:
                self.store.delete(self.chance.choice(self.ids))
            except (JobNotFound, JobNotFinished):
                return

    def reap(self) -> None:
        if self.held and self.chance.random() < 0.5:
            # A holder that fell silent long ago.
            self.store.client.zadd("dmft:leases", {self.chance.choice(self.held).id: 1}, xx=True)
        if self.ids and self.chance.random() < 0.3:
            # One whose retention has ended.
            self.store.client.zadd("dmft:expiring", {self.chance.choice(self.ids): 1}, xx=True)
        self.store.reap()


@pytest.fixture
def twice(redis_client: redis.Redis, settings: Settings) -> Twice:
    return Twice(redis_client, settings.model_copy(update={"lease_seconds": 600.0}))


@pytest.mark.parametrize("seed", range(6))
def test_a_call_that_comes_again_at_once(twice: Twice, seed: int) -> None:
    life = Life(twice, seed)
    for _ in range(60):
        life.step()
    assert {script for script, *_ in twice.calls} >= {"submit", "claim"}


@pytest.mark.parametrize("seed", range(6))
def test_calls_that_come_again_late_change_no_final_state(twice: Twice, seed: int) -> None:
    life = Life(twice, 100 + seed)
    for _ in range(80):
        life.step()
    before = snapshot(twice.client)
    calls = list(twice.calls)
    life.chance.shuffle(calls)
    for script, arguments, answer in calls:
        again = twice.replay(script, arguments)
        if script == "claim" and answer:
            assert again == answer
    after = snapshot(twice.client)
    for job_id in life.ids:
        key = f"dmft:job:{job_id}"
        if key not in before:
            assert key not in after, "a deleted job is not made again"
            continue
        old, new = before[key], after[key]
        if JobStatus(old["status"]).final:
            for name in ("status", "artifact", "error", "finished_at", "epoch", "attempts"):
                assert new.get(name) == old.get(name), name
        else:
            # A cancel or a lost lease may end it; a claim of old takes nothing.
            assert int(new["epoch"]) <= int(old["epoch"]) or new["status"] != "running"


def test_a_submission_that_was_refused_is_refused_when_it_comes_again(
    redis_client: redis.Redis, settings: Settings
) -> None:
    """Also when there is room by then, or the key is free: its user was told that nothing was taken in."""
    twice = Twice(redis_client, settings.model_copy(update={"max_queued_per_user": 1}))

    def submit(steps: int) -> None:
        request = small_request(training={"steps": steps}, reuse=False)
        twice.submit(request, "u_ada", request_hash="h", idempotency_key="k")

    submit(5)
    with pytest.raises(IdempotencyConflict):
        submit(6)
    with pytest.raises(TooManyQueued):
        twice.submit(small_request(reuse=False), "u_ada", request_hash="h")
    submit(5)
    (job_id,) = redis_client.zrange("dmft:jobs", 0, -1)
    twice.cancel(job_id)
    twice.delete(job_id)
    for script, arguments, answer in [call for call in twice.calls if call[0] == "submit"]:
        assert twice.replay(script, arguments) == answer
    assert redis_client.zrange("dmft:jobs", 0, -1) == []
    assert all(redis_client.pttl(key) > 0 for key in redis_client.scan_iter("dmft:answered:*"))


class Frozen:
    """A Redis that is stopped, and woken when a client has failed a number of times to hear from it."""

    def __init__(self, server: EmbeddedRedis, failures: int) -> None:
        self._server = server
        self._failures = failures
        self.enough = threading.Event()

    def client(self) -> redis.Redis:
        frozen = self

        class Counting(ConstantBackoff):
            def compute(self, failures: int) -> float:
                if failures >= frozen._failures:
                    frozen.enough.set()
                return super().compute(failures)

        return redis.Redis.from_url(
            self._server.url,
            decode_responses=True,
            socket_timeout=0.3,
            retry=Retry(Counting(0.05), 200),
            retry_on_error=[redis.ConnectionError, redis.TimeoutError],
        )

    def during(self, call: Any) -> Any:
        """What a call answers that is made while the server is frozen, and repeated before it wakes."""
        found: list[Any] = []
        os.kill(self._server.pid, signal.SIGSTOP)
        try:
            caller = threading.Thread(target=lambda: found.append(call()))
            caller.start()
            assert self.enough.wait(30.0)
        finally:
            os.kill(self._server.pid, signal.SIGCONT)
        caller.join(30.0)
        self.enough.clear()
        assert found, "the call raised, or never answered"
        return found[0]


@pytest.fixture
def frozen(redis_server: EmbeddedRedis, redis_client: redis.Redis) -> Frozen:
    return Frozen(redis_server, failures=3)


@pytest.mark.slow
def test_a_frozen_redis_makes_nothing_happen_twice(
    frozen: Frozen, settings: Settings, redis_client: redis.Redis
) -> None:
    patient = settings.model_copy(update={"lease_seconds": 600.0})
    store = JobStore(frozen.client(), patient)

    def finish(claim: Claim) -> bool:
        store.finish(claim, JobStatus.SUCCEEDED, artifact=f"{claim.id}.{claim.epoch}")
        return True

    requests: list[SolveRequest] = [small_request(reuse=False) for _ in range(4)]
    ids = [frozen.during(lambda r=r: store.submit(r, "u_ada", request_hash="h")).job.id for r in requests]
    assert redis_client.zcard("dmft:jobs") == len(ids), "each was taken in once"
    claims = [frozen.during(lambda: store.claim("worker")) for _ in range(2)]
    assert redis_client.scard("dmft:running:u_ada") == 2, "each call took one job"
    for claim in claims:
        assert frozen.during(lambda claim=claim: finish(claim))
        assert store.get(claim.id).status is JobStatus.SUCCEEDED
        assert store.referenced(f"{claim.id}.{claim.epoch}")
    assert {claim.id for claim in claims} <= set(ids)


def test_a_claim_that_was_never_answered_is_taken_up_again(
    store: JobStore, redis_client: redis.Redis
) -> None:
    """Its job is in nobody's hands until the same store asks once more."""
    job = store.submit(small_request(), "u_ada", request_hash="h").job
    other = store.submit(small_request(reuse=False), "u_ada", request_hash="g").job
    original, lost = store._run, []

    def deaf(script: str, *arguments: Any) -> Any:
        answer = original(script, *arguments)
        if script == "claim" and not lost:
            lost.append(answer)
            raise redis.TimeoutError("the answer was lost")
        return answer

    store._run = deaf  # type: ignore[method-assign]
    with pytest.raises(redis.TimeoutError):
        store.claim("worker")
    assert redis_client.hget(f"dmft:job:{job.id}", "status") == "running"
    first, second = store.claim("worker"), store.claim("worker")
    assert first is not None
    assert second is not None
    assert [first.id, second.id] == [job.id, other.id]
    assert store.get(job.id).attempts == 1


def test_a_delete_that_was_refused_takes_nothing_away_when_it_comes_again(
    store: JobStore, settings: Settings, redis_client: redis.Redis
) -> None:
    """Its caller was told that the job runs; another call, made after the end, deletes."""
    twice = Twice(redis_client, settings)
    job = twice.submit(small_request(), "u_ada", request_hash="h").job
    claim = twice.claim("worker")
    assert claim is not None
    with pytest.raises(JobNotFinished):
        twice.delete(job.id)
    refused = next(arguments for script, arguments, _ in reversed(twice.calls) if script == "delete")
    twice.finish(claim, JobStatus.SUCCEEDED, artifact="files")
    assert twice.replay("delete", refused)[0] == "unfinished"
    assert twice.get(job.id).status is JobStatus.SUCCEEDED
    assert twice.delete(job.id) == "files"
    assert twice.replay("delete", refused)[0] == "unfinished"


def test_a_request_of_another_version_fails_and_holds_up_nobody(
    store: JobStore, redis_client: redis.Redis
) -> None:
    job = store.submit(small_request(), "u_ada", request_hash="h").job
    other = store.submit(small_request(reuse=False), "u_ada", request_hash="g").job
    good = redis_client.hget(f"dmft:job:{job.id}", "request")
    redis_client.hset(f"dmft:job:{job.id}", "request", '{"data": "of old"}')
    claim = store.claim("worker")
    assert claim is not None
    assert claim.id == other.id
    assert redis_client.hget(f"dmft:job:{job.id}", "status") == "failed"
    redis_client.hset(f"dmft:job:{job.id}", "request", str(good))
    error = store.get(job.id).error
    assert error is not None
    assert error.code == "request_unreadable"


@pytest.mark.parametrize("end", ["delete", "retention"])
def test_nothing_of_a_removed_job_is_left(store: JobStore, redis_client: redis.Redis, end: str) -> None:
    """Not its request, its events, nor a name in any index; a tombstone of a few words, with an end."""
    client: Any = redis_client
    request = small_request(name="secret-name", tags=["secret-tag"])
    job = store.submit(request, "u_ada", request_hash="h", idempotency_key="k").job
    claim = store.claim("w")
    assert claim is not None
    store.beat(claim, Progress(step=1, steps=2))
    store.finish(claim, JobStatus.SUCCEEDED, artifact="files")
    if end == "delete":
        store.delete(job.id)
    else:
        client.zadd("dmft:expiring", {job.id: 1})
        store.reap()
    store.removed("files")
    left = {key: value for key, value in snapshot(client).items() if job.id in f"{key}{value}"}
    assert all(client.pttl(key) > 0 for key in left), left
    assert len(str(left)) < 700
    assert "secret" not in str(left)


def test_files_that_another_job_reuses_are_referenced_still(store: JobStore) -> None:
    """A worker that did not hear that its result was taken must not remove it, even if its job is gone."""
    job = store.submit(small_request(), "u_ada", request_hash="h").job
    claim = store.claim("w")
    assert claim is not None
    store.finish(claim, JobStatus.SUCCEEDED, artifact="files")
    again = store.submit(small_request(), "u_ada", request_hash="h").job
    assert again.cached
    store.delete(job.id)
    assert store.referenced("files")
    store.delete(again.id)
    assert not store.referenced("files")
