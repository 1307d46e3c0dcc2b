"""Schemathesis over the API's own OpenAPI document: `python -m tests.fuzz --cases 10000`.

A real API with a real Redis is started for it; solves that are queued are cancelled soon, so that their event
streams end. Left out is one check, `positive_data_acceptance`: not all that a schema can say of a request
makes it a problem that can be solved (a kernel must be positive semidefinite).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from dmft_schema import JobStatus
from jobs.connection import connect
from jobs.embedded_redis import EmbeddedRedis
from jobs.errors import JobNotFound
from jobs.keys import KeyStore
from jobs.settings import Settings
from jobs.store import JobStore
from tests.serving import running_api

SEED = 20221109


@dataclass(frozen=True)
class Outcome:
    """What a run found: how many requests were sent, its report, and whether anything failed."""

    cases: int
    report: str
    failed: bool


def fuzz(cases: int, folder: Path, seed: int = SEED, phases: str = "examples,fuzzing") -> Outcome:
    """Send up to `cases` random requests, spread over the operations, and what other phases send besides.

    Args:
        cases: of the phase `fuzzing`; an operation with few different requests takes fewer.
        folder: keeps what is written.
        phases: as schemathesis names them; `coverage` sends some thousand requests, whatever `cases` is.
    """
    with EmbeddedRedis(folder / "redis") as redis:
        settings = Settings(
            redis_url=redis.url,
            data_dir=folder / "data",
            lease_seconds=1e6,
            max_queued_per_user=1_000_000,
            max_wait_seconds=0.1,
            max_body_bytes=200_000,
        )
        client = connect(redis.url)
        key = KeyStore(client).create("fuzz")
        store = JobStore(client, settings)
        store.announce("a worker")
        with running_api(settings) as url, _cancelling(store):
            paths = httpx.get(f"{url}/openapi.json").json()["paths"]
            operations = sum(len(methods) for methods in paths.values())
            command = [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
                *("--header", f"Authorization: Bearer {key}", "--seed", str(seed)),
                *("--phases", phases, "--exclude-checks", "positive_data_acceptance"),
                *("--max-examples", str(-(-cases // operations)), "--continue-on-failure"),
                *("--suppress-health-check", "all", "--request-timeout", "30", "--no-color"),
                *("--warnings", "off"),
            ]
            done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    counted = re.search(r"(\d+) generated", done.stdout)
    return Outcome(int(counted[1]) if counted else 0, done.stdout + done.stderr, done.returncode != 0)


@contextmanager
def _cancelling(store: JobStore) -> Iterator[None]:
    over = threading.Event()

    def cancel() -> None:
        while not over.wait(0.2):
            for job in store.page(status=JobStatus.QUEUED).items:
                with suppress(JobNotFound):
                    store.cancel(job.id)

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dmft-fuzz-") as folder:
        phases = "examples,coverage,fuzzing"
        outcome = fuzz(arguments.cases, Path(folder), arguments.seed, phases)
    print(outcome.report)
    print(f"{outcome.cases} requests, seed {arguments.seed}")
    return int(outcome.failed)


if __name__ == "__main__":
    sys.exit(main())
