"""Redis frozen under load, again and again: every job once, every result there, no final state changed.

    python -m tests.records.freeze --rounds 20 --jobs 2000 --seconds 12

A server as its users run it (two slots, a lease of 3 s); twenty clients submit tiny solves while others are
being solved; Redis is stopped (SIGSTOP) in the middle, and goes on after a while. Clients repeat what was not
answered, as the Python client does by itself. Each round prints a line; the first that breaks a rule ends it.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from dmft_client import Client
from dmft_schema import JobStatus
from tests import waiting
from tests.e2e.conftest import LEASE_SECONDS, Server, start, stop

CLIENTS = 20
LIMITS = {"DMFT_MAX_QUEUED_PER_USER": "100000", "DMFT_WORKERS": "2"}


@dataclass(frozen=True)
class Round:
    """What a round came to.

    Attributes:
        jobs: how many were acknowledged, each once.
        attempts: how many attempts they took together; more than jobs where a claim was lost.
        frozen_at: how many were acknowledged when Redis stopped.
        seconds: from the first submission to the last end.
    """

    jobs: int
    attempts: int
    frozen_at: int
    seconds: float


def freeze(server: Server, jobs: int, seconds: float, seed: int) -> Round:
    """One round on a running server.

    Raises:
        AssertionError: a rule is broken; the message says which.
    """
    chance = random.Random(seed)
    acknowledged: list[str] = []
    redis_pid = next(pid for pid, command in server.descendants().items() if "redis-server" in command)
    begun = time.monotonic()
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(server.url, server.key, patience=120)) for _ in range(CLIENTS)]

        def submit(number: int) -> None:
            solve = clients[number % CLIENTS].solve(
                kernel=[[1.0, 0.2], [0.2, 1.0]],
                targets=[1.0, -1.0],
                depth=1,
                steps=2,
                method="static_ntk",
                reuse=False,
                name=f"{seed}-{number}",
            )
            acknowledged.append(solve.id)

        half = threading.Event()
        with ThreadPoolExecutor(CLIENTS) as pool:
            submissions = [pool.submit(submit, number) for number in range(jobs)]
            at = chance.randrange(jobs // 4, 3 * jobs // 4)
            submissions[at].add_done_callback(lambda _: half.set())
            assert half.wait(300), "submissions stood still before Redis did"
            frozen_at = len(acknowledged)
            os.kill(redis_pid, signal.SIGSTOP)
            try:
                time.sleep(seconds)  # the fault itself, not a wait for something
            finally:
                os.kill(redis_pid, signal.SIGCONT)
            for submission in submissions:
                submission.result(300)
        return _judged(server, clients[0], acknowledged, seed, frozen_at, begun)


def _judged(
    server: Server, client: Client, acknowledged: list[str], seed: int, frozen_at: int, begun: float
) -> Round:
    store = server.store
    jobs = len(acknowledged)
    assert len(set(acknowledged)) == jobs, "two submissions were answered with one job"

    def ended() -> bool:
        pending = [job_id for job_id in acknowledged if not store.get(job_id).status.final]
        return not pending

    waiting.until(ended, seconds=600)
    took = time.monotonic() - begun
    final = {job_id: store.get(job_id) for job_id in acknowledged}
    lost = [job_id for job_id, job in final.items() if job.status is not JobStatus.SUCCEEDED]
    assert not lost, f"{len(lost)} of {jobs} did not succeed: {final[lost[0]]}"
    names = sorted(job.name or "" for job in final.values())
    assert names == sorted(f"{seed}-{number}" for number in range(jobs)), "not every submission once"
    mine = [solve.id for solve in client.list() if (solve.known.name or "").startswith(f"{seed}-")]
    assert sorted(mine) == sorted(acknowledged), "jobs that nobody was told of"
    # Whatever a late repetition would do, it has done within a lease.
    quiet = time.monotonic() + LEASE_SECONDS
    waiting.until(lambda: time.monotonic() > quiet, seconds=2 * LEASE_SECONDS)
    gauges = store.gauges()
    assert (gauges.overdue, gauges.jobs["running"], gauges.jobs["queued"]) == (0, 0, 0), gauges
    for job_id, job in final.items():
        again = store.get(job_id)
        assert (again.status, again.finished_at) == (job.status, job.finished_at), "a final state changed"
        assert len(client.get(job_id).result().loss) == 2
    return Round(jobs, sum(job.attempts for job in final.values()), frozen_at, took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=12.0)
    chosen = parser.parse_args()
    os.environ |= LIMITS
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = str(Path(folder) / "state")
        server = start(Path(folder) / "data")
        try:
            for number in range(chosen.rounds):
                done = freeze(server, chosen.jobs, chosen.seconds, seed=number)
                print(
                    f"round {number + 1}: Redis frozen {chosen.seconds:g} s after {done.frozen_at} "
                    f"submissions; {done.jobs} jobs, each once, all succeeded and downloaded, "
                    f"{done.attempts} attempts, {done.seconds:.0f} s",
                    flush=True,
                )
        finally:
            stop(server)


if __name__ == "__main__":
    main()
