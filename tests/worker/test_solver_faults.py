"""Whatever happens in a solver process, the job ends with a status that says so, or is run again."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from dmft_schema import Job, JobStatus, ResultDocument, SolveRequest
from jobs.artifacts import RESULT_JSON, Artifacts
from jobs.settings import Settings
from jobs.store import JobStore
from tests import waiting
from tests.conftest import slow_request, small_request
from tests.serving import Background, WatchedPool
from worker.solver import SolverDied, SolverPool, SolverProcess
from worker.supervisor import Supervisor

SPOILED = """
import sys
import worker.solver_process as process
{how}
process.main()
"""

BURST = """
def burst(*_):
    raise RuntimeError("std::bad_alloc")
process._write = burst
"""
REFUSED = "process.Result.document = lambda _: process.ResultDocument.model_validate({})"
LIMITED = """
import resource
mapped = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (mapped + 300 * 2**20,) * 2)
"""


def submit(store: JobStore, request: SolveRequest) -> Job:
    return store.submit(request, "ada", request_hash="h").job


def spoiled(how: str) -> tuple[str, ...]:
    """The command of a real solver process in which one thing is different."""
    return (sys.executable, "-c", SPOILED.format(how=how))


def test_an_unreadable_command_ends_the_process() -> None:
    solver = SolverProcess()
    try:
        solver._say("{not json")
        assert solver.receive(60.0) is not None
        with pytest.raises(SolverDied, match="could not read its command"):
            solver.receive(60.0)
    finally:
        solver.kill()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("process.SolveCommand = process.Message.__class__", "solver_died", "could not read its command"),
        ("import os; process.solve = lambda *_, **__: os.close(int(sys.argv[1])) or 1/0", "solver_died", ""),
        ("process._write = lambda *_: process.os._exit(9)", "solver_died", "exit code 9"),
        ("process.Solver._solve = lambda s, c: print('?', file=s._messages, flush=True)",
         "solver_died", "no longer be heard"),
        (BURST, "out_of_memory", "bad_alloc"),
        (REFUSED, "result_refused", "summary"),
    ],
)  # fmt: skip
def test_faults_end_with_a_status_that_says_so(
    store: JobStore, artifacts: Artifacts, settings: Settings, how: str, code: str, words: str
) -> None:
    pool = SolverPool(spoiled(how))
    try:
        job = submit(store, small_request())
        Supervisor(store, artifacts, pool, settings, "spoiled").work()
        done = store.get(job.id)
        assert done.status is JobStatus.FAILED
        assert done.error is not None
        assert done.error.code == code, done.error
        assert words in done.error.message
        assert store.artifact(job.id) is None or code != "result_refused"
    finally:
        pool.close()


HANGING = """
import ctypes, time
from dmft_engine.training.reporter import Reporter
step = Reporter.step
def hang(self, *args, **options):
    if self.steps_done >= 20:
        {hang}
    step(self, *args, **options)
Reporter.step = hang
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hang", "kept"),
    [
        ("time.sleep(3600)", True),
        ("os_sleep = ctypes.PyDLL(None).sleep; os_sleep(3600)", False),  # with Python's lock held
    ],
)
def test_a_hang_ends_as_stalled_and_keeps_what_there_is(
    store: JobStore, artifacts: Artifacts, settings: Settings, hang: str, kept: bool
) -> None:
    impatient = settings.model_copy(update={"stall_seconds": 20.0})
    pool = SolverPool(spoiled(HANGING.format(hang=hang)))
    try:
        job = submit(store, slow_request())
        Supervisor(store, artifacts, pool, impatient, "impatient").work()
        found = store.get(job.id)
        assert found.status is JobStatus.FAILED
        assert found.error is not None
        assert found.error.code == "stalled"
        assert "DMFT_STALL_SECONDS" in found.error.advice
        name = store.artifact(job.id)
        assert (name is not None) == kept
        assert ("is kept" in found.error.message) == kept
        assert ("did not answer" in found.error.message) != kept
        if name is not None:
            text = artifacts.result_file(name, RESULT_JSON).read_text()
            document = ResultDocument.model_validate_json(text)
            # 20 steps were reported, and the one that hangs is recorded.
            assert (document.complete, len(document.loss), len(document.predictions)) == (False, 21, 21)
    finally:
        pool.close()


@pytest.mark.slow
def test_a_cancelled_solve_that_hangs_keeps_what_there_is(
    store: JobStore,
    artifacts: Artifacts,
    settings: Settings,
    background: Background,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.supervisor._STOP_GRACE_SECONDS", 20.0)
    pool = SolverPool(spoiled(HANGING.format(hang="time.sleep(3600)")))
    try:
        job = submit(store, slow_request())
        background.work(Supervisor(store, artifacts, pool, settings, "patient"))
        waiting.event(store, job.id, lambda event: event.data.get("step", 0) > 0)
        store.cancel(job.id)
        assert waiting.final(store, job.id) is JobStatus.CANCELLED
        assert store.artifact(job.id) is not None
        background.end()
    finally:
        pool.close()


@pytest.mark.slow
def test_a_frozen_solver_ends_as_stalled(
    store: JobStore, artifacts: Artifacts, pool: WatchedPool, settings: Settings, background: Background
) -> None:
    impatient = settings.model_copy(update={"stall_seconds": 15.0})
    job = submit(store, slow_request())
    background.work(Supervisor(store, artifacts, pool, impatient, "impatient"))
    waiting.running(store, job.id)
    assert pool.last is not None
    os.kill(pool.last.pid, signal.SIGSTOP)
    assert waiting.final(store, job.id) is JobStatus.FAILED
    error = store.get(job.id).error
    assert error is not None
    assert error.code == "stalled"
    assert "did not answer" in error.message


def test_a_failure_that_the_engine_reports_keeps_the_process(
    store: JobStore, supervisor: Supervisor, pool: WatchedPool
) -> None:
    pids = []
    for rate in (1e4, 0.1):
        job = submit(store, small_request(training={"steps": 60, "learning_rate": rate}, reuse=False))
        supervisor.work()
        assert pool.last is not None
        pids.append(pool.last.pid)
        found = store.get(job.id).error
        assert (found is not None and found.code == "diverged") == (rate > 1)
    assert pids[0] == pids[1]


@pytest.mark.slow
def test_a_real_limit_of_memory_is_out_of_memory(
    store: JobStore, artifacts: Artifacts, settings: Settings
) -> None:
    pool = SolverPool(spoiled(LIMITED))
    try:
        job = submit(store, small_request(method={"name": "dmft", "samples": 400_000}))
        Supervisor(store, artifacts, pool, settings, "limited").work()
        error = store.get(job.id).error
        assert error is not None
        assert error.code == "out_of_memory", error
        assert "fewer" in error.advice
    finally:
        pool.close()
