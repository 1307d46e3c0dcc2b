"""No job waits that a worker may take: every way in which one becomes free to take wakes a slot.

The slots' own looking is put off for longer than a test lasts, so that only wake-ups move anything; looks
are counted.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

import pytest
import redis

from dmft_schema import JobError, JobStatus
from jobs.artifacts import Artifacts
from jobs.errors import JobNotFound
from jobs.records import Claim
from jobs.settings import Settings
from jobs.store import JobStore
from jobs.workers import WorkerFacts
from tests import waiting
from tests.conftest import small_request
from worker import slots as slots_module
from worker.slots import Slots
from worker.solver import SolverPool
from worker.supervisor import Supervisor

SECONDS = 60.0


class Looks(JobStore):
    """A store that counts how often it is asked for a job."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        super().__init__(client, settings)
        self.count = 0

    def claim(self, worker: str, facts: WorkerFacts | None = None) -> Claim | None:
        self.count += 1
        return super().claim(worker, facts)


class ByHand(Supervisor):
    """A supervisor whose jobs end when and how the test says."""

    def __init__(self, store: JobStore, artifacts: Artifacts, settings: Settings, fleet: Fleet) -> None:
        super().__init__(store, artifacts, fleet.pool, settings, f"worker-{len(fleet.all)}", fleet.tell)
        self.ends: dict[str, str] = {}
        self.change = threading.Condition()
        self.running: set[str] = set()

    def _see_through(self, claim: Claim) -> None:
        with self.change:
            self.running.add(claim.id)
            self.change.wait_for(lambda: claim.id in self.ends or self.draining.is_set())
            self.running.discard(claim.id)
            how = self.ends.pop(claim.id, "release")
        match how:
            case "finish":
                self._store.finish(claim, JobStatus.SUCCEEDED, artifact=f"{claim.id}.{claim.epoch}")
            case "die":
                self._store.attempt_failed(claim, JobError(code="solver_died", message="it died"))
            case "release":
                self._store.release(claim)

    def end(self, how: str) -> None:
        with self.change:
            for job_id in sorted(self.running - self.ends.keys())[:1]:
                self.ends[job_id] = how
            self.change.notify_all()


class Fleet:
    """Workers that hear each ticket, as those of a server do."""

    def __init__(self) -> None:
        self.pool = SolverPool()
        self.all: list[tuple[ByHand, Slots]] = []
        self.tickets = 0

    def tell(self) -> None:
        self.tickets += 1
        for _, slots in self.all:
            slots.wake()

    def end(self) -> None:
        for supervisor, slots in self.all:
            slots.drain()
            with supervisor.change:
                supervisor.change.notify_all()
        assert all(slots.join(SECONDS) for _, slots in self.all)
        self.pool.close()


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.setattr(slots_module, "LOOK_SECONDS", 10 * SECONDS)
    fleet = Fleet()
    yield fleet
    fleet.end()


@pytest.mark.parametrize("seed", range(4))
def test_no_job_waits_that_a_worker_may_take(
    fleet: Fleet, redis_client: redis.Redis, artifacts: Artifacts, settings: Settings, seed: int
) -> None:
    patient = settings.model_copy(update={"lease_seconds": 600.0, "max_attempts": 3})
    store = Looks(redis_client, patient)
    chance = random.Random(seed)
    for count in (1, 2):
        supervisor = ByHand(store, artifacts, patient, fleet)
        fleet.all.append((supervisor, Slots(supervisor, count)))
    for _, slots in fleet.all:
        slots.start()
    submitted: list[str] = []

    def submit() -> None:
        request = small_request(reuse=False)
        submitted.append(store.submit(request, chance.choice(["ada", "bob"]), request_hash="h").job.id)
        fleet.tell()

    def cancel() -> None:
        try:
            store.cancel(chance.choice(submitted))
        except (IndexError, JobNotFound):
            return

    def end() -> None:
        chance.choice(fleet.all)[0].end(chance.choice(["finish", "finish", "die"]))

    def settled() -> bool:
        """Every slot is busy, or nothing may be taken."""
        free = 3 - sum(len(supervisor.running - supervisor.ends.keys()) for supervisor, _ in fleet.all)
        capped = all(
            redis_client.scard(f"dmft:running:{owner}") >= patient.max_running_per_user
            for owner in redis_client.smembers("dmft:waiting")
        )
        return free == 0 or capped

    for _ in range(60):
        chance.choice((submit, submit, end, end, cancel))()
        waiting.until(settled, SECONDS)
    while redis_client.exists("dmft:waiting") or redis_client.zcard("dmft:leases"):
        for supervisor, _ in fleet.all:
            supervisor.end("finish")
        waiting.until(settled, SECONDS)
    assert all(store.get(job_id).status.final for job_id in submitted)
    # Each ticket and each end has a look or two; nobody polls.
    assert store.count <= 3 * (fleet.tickets + 3 * len(submitted)) + 10


def test_a_slot_looks_by_itself(
    redis_client: redis.Redis, artifacts: Artifacts, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the ticket that was lost; and for as long as there is nothing, it only looks whether there is."""
    monkeypatch.setattr(slots_module, "LOOK_SECONDS", 0.05)
    fleet, store = Fleet(), Looks(redis_client, settings)
    supervisor = ByHand(store, artifacts, settings, fleet)
    fleet.all.append((supervisor, Slots(supervisor, 1)))
    fleet.all[0][1].start()
    try:
        waiting.until(lambda: store.count >= 3, SECONDS)
        assert not list(redis_client.scan_iter("dmft:claim:*")), "a look at nothing writes nothing"
        job = store.submit(small_request(), "ada", request_hash="h").job
        waiting.until(lambda: job.id in supervisor.running, SECONDS)
        supervisor.end("finish")
        waiting.until(lambda: store.get(job.id).status is JobStatus.SUCCEEDED, SECONDS)
    finally:
        fleet.end()


def test_a_wake_up_that_comes_while_all_are_busy_is_not_lost(
    fleet: Fleet, redis_client: redis.Redis, artifacts: Artifacts, settings: Settings
) -> None:
    store = Looks(redis_client, settings)
    supervisor = ByHand(store, artifacts, settings, fleet)
    slots = Slots(supervisor, 1)
    fleet.all.append((supervisor, slots))
    first = store.submit(small_request(), "ada", request_hash="h").job.id
    slots.start()
    waiting.until(lambda: first in supervisor.running, SECONDS)
    slots.wake()
    before = store.count
    supervisor.end("finish")
    # Once because its job has ended, once because it was woken.
    waiting.until(lambda: store.count == before + 2, SECONDS)
