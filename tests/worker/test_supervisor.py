"""One supervisor with real solver processes: results, faults, cancels, leases."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
import redis

from dmft_schema import Job, JobStatus, ResultDocument, SolveRequest
from jobs.artifacts import RESULT_JSON, RESULT_NPZ, Artifacts
from jobs.embedded_redis import EmbeddedRedis
from jobs.store import JobStore
from tests import waiting
from tests.conftest import slow_request, small_request
from tests.serving import Background, WatchedPool
from worker.solver import SolverPool
from worker.supervisor import Supervisor


def submit(store: JobStore, request: SolveRequest) -> Job:
    return store.submit(request, "ada", request_hash="h").job


def kill_solver(pool: WatchedPool) -> None:
    assert pool.last is not None
    os.kill(pool.last.pid, signal.SIGKILL)


def test_a_job_is_solved_and_its_result_stored(
    store: JobStore, artifacts: Artifacts, supervisor: Supervisor
) -> None:
    job = submit(store, small_request())
    assert supervisor.work() == 1
    done = store.get(job.id)
    assert done.status == "succeeded", done.error
    assert done.progress.step == done.progress.steps == 5
    name = store.artifact(job.id)
    assert name is not None
    document = ResultDocument.model_validate_json(artifacts.result_file(name, RESULT_JSON).read_text())
    with np.load(artifacts.result_file(name, RESULT_NPZ)) as arrays:
        assert arrays["loss"].tolist() == document.loss
        assert json.loads(arrays["document"].tobytes())["manifest"]["request"] == document.manifest["request"]
    stored = SolveRequest.model_validate_json(store.request(job.id) or "")
    assert SolveRequest.model_validate(document.manifest["request"]) == stored
    assert job.request.data.points == 2
    assert document.loss[0] == 1.0
    assert document.loss[-1] < 1.0


def test_a_warm_solver_takes_the_next_job(store: JobStore, supervisor: Supervisor, pool: WatchedPool) -> None:
    pids = []
    for _ in range(2):
        submit(store, small_request(reuse=False))
        supervisor.work()
        assert pool.last is not None
        pids.append(pool.last.pid)
    assert pids[0] == pids[1]


def test_killed_solver_is_replaced_and_the_job_completes_once(
    store: JobStore, supervisor: Supervisor, pool: WatchedPool, background: Background
) -> None:
    short = {"steps": 4_000, "learning_rate": 0.001}
    job = submit(store, slow_request(training=short))
    background.work(supervisor)
    waiting.running(store, job.id)
    kill_solver(pool)
    assert waiting.final(store, job.id) is JobStatus.SUCCEEDED
    assert store.get(job.id).attempts == 2
    assert store.get(job.id).progress.step == 4_000


def test_solver_killed_every_time_fails_the_job(
    store: JobStore, artifacts: Artifacts, supervisor: Supervisor, pool: WatchedPool, background: Background
) -> None:
    job = submit(store, slow_request())
    background.work(supervisor)
    for attempt in (1, 2, 3):
        waiting.running(store, job.id, attempt)
        kill_solver(pool)
    assert waiting.final(store, job.id) is JobStatus.FAILED
    error = store.get(job.id).error
    assert error is not None
    assert error.code == "solver_died"
    assert "SIGKILL" in error.message
    assert "fewer samples" in error.advice
    assert store.artifact(job.id) is None


def test_cancel_keeps_the_trajectory_reached(
    store: JobStore, artifacts: Artifacts, supervisor: Supervisor, background: Background
) -> None:
    job = submit(store, slow_request())
    background.work(supervisor)
    waiting.running(store, job.id)
    store.cancel(job.id)
    assert waiting.final(store, job.id) is JobStatus.CANCELLED
    name = store.artifact(job.id)
    assert name is not None
    document = ResultDocument.model_validate_json(artifacts.result_file(name, RESULT_JSON).read_text())
    assert document.complete is False
    assert 0 < len(document.loss) < 100_000


def test_a_solver_deaf_to_cancel_is_killed(
    store: JobStore,
    supervisor: Supervisor,
    pool: WatchedPool,
    background: Background,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.supervisor._STOP_GRACE_SECONDS", 0.5)
    job = submit(store, slow_request())
    background.work(supervisor)
    waiting.running(store, job.id)
    assert pool.last is not None
    deaf = pool.last
    os.kill(deaf.pid, signal.SIGSTOP)
    store.cancel(job.id)
    assert waiting.final(store, job.id) is JobStatus.CANCELLED
    waiting.until(lambda: not deaf.alive)


def test_draining_gives_the_job_back_uncounted(
    store: JobStore, supervisor: Supervisor, pool: WatchedPool, background: Background
) -> None:
    job = submit(store, slow_request())
    thread = background.work(supervisor)
    waiting.running(store, job.id)
    supervisor.draining.set()
    thread.join(10)
    back = store.get(job.id)
    assert (back.status, back.attempts) == ("queued", 0)
    assert pool.last is not None
    assert not pool.last.alive


def test_a_holder_that_lost_its_lease_stops_and_leaves_no_result(
    store: JobStore,
    artifacts: Artifacts,
    supervisor: Supervisor,
    pool: WatchedPool,
    background: Background,
    redis_client: redis.Redis,
) -> None:
    job = submit(store, slow_request())
    store.reap()
    thread = background.work(supervisor)
    waiting.running(store, job.id)
    redis_client.zadd("dmft:leases", {job.id: 1})
    store.reap()
    other = store.claim("other-worker")
    assert other is not None
    thread.join(10)
    assert pool.last is not None
    assert not pool.last.alive
    name, folder = artifacts.new_result(job.id, other.epoch)
    for file in (RESULT_JSON, RESULT_NPZ):
        (folder / file).write_text("the other worker's")
    store.finish(other, JobStatus.SUCCEEDED, artifact=name)
    assert store.artifact(job.id) == name
    assert [path.name for path in folder.parent.glob(f"{job.id}.*")] == [name]


def test_long_silence_of_the_solver_does_not_lose_the_lease(
    store: JobStore, supervisor: Supervisor, pool: WatchedPool, background: Background
) -> None:
    """The supervisor beats by itself: a step that takes longer than a lease is no fault."""
    job = submit(store, slow_request())
    background.work(supervisor)
    waiting.running(store, job.id)
    assert pool.last is not None
    os.kill(pool.last.pid, signal.SIGSTOP)
    before = waiting.event(store, job.id, lambda e: e.kind == "progress")
    for _ in range(8):  # four seconds: twice the lease
        store.events(job.id, after="$", block_ms=500)
        assert store.reap().expired == 0
    os.kill(pool.last.pid, signal.SIGCONT)
    store.cancel(job.id)
    assert waiting.final(store, job.id) is JobStatus.CANCELLED
    assert before.id


def test_redis_restart_during_a_solve(
    store: JobStore,
    supervisor: Supervisor,
    background: Background,
    redis_server: EmbeddedRedis,
) -> None:
    job = submit(store, slow_request(training={"steps": 4_000, "learning_rate": 0.001}))
    store.reap()
    background.work(supervisor)
    waiting.running(store, job.id)
    redis_server.kill()
    redis_server.stop()
    redis_server.start()
    store.reap()
    assert waiting.final(store, job.id) is JobStatus.SUCCEEDED
    assert store.get(job.id).attempts == 1


def test_divergence_fails_with_step_advice_and_the_partial_trajectory(
    store: JobStore, artifacts: Artifacts, supervisor: Supervisor
) -> None:
    job = submit(
        store,
        small_request(
            training={"learning_rate": 50.0, "steps": 100},
            method={"name": "dmft", "samples": 256},
        ),
    )
    supervisor.work()
    failed = store.get(job.id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.code == "diverged"
    assert failed.error.step is not None
    assert "learning_rate" in failed.error.advice
    name = store.artifact(job.id)
    assert name is not None
    document = ResultDocument.model_validate_json(artifacts.result_file(name, RESULT_JSON).read_text())
    assert len(document.loss) == failed.error.step
    assert np.isfinite(document.loss).all()


def test_dataset_that_is_gone_fails_with_advice(store: JobStore, supervisor: Supervisor) -> None:
    job = submit(store, small_request(data={"dataset_id": "0" * 64}))
    supervisor.work()
    error = store.get(job.id).error
    assert error is not None
    assert (error.code, "datasets" in error.advice) == ("dataset_missing", True)


def test_a_gpu_that_is_not_there_is_said_so(
    store: JobStore, artifacts: Artifacts, pool: SolverPool, settings, tmp_path
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with_gpu = settings.model_copy(update={"device": "cuda"})
    job = submit(store, small_request())
    Supervisor(store, artifacts, pool, with_gpu, "w").work()
    error = store.get(job.id).error
    assert error is not None
    assert error.code == "device_unavailable"
