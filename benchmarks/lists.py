"""How long lists of solves take with many of them stored: `python -m benchmarks.lists [--jobs 50000]`.

On an API and an embedded Redis of its own. Each list is asked for 20 times alone, then ten at once
four times; longest and median in milliseconds. Then the same jobs without their lists, as an earlier
version left them: how long it takes to build them, and the longest wait of a neighbour meanwhile.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from dmft_schema import JobError, JobStatus, SolveRequest
from jobs.connection import connect
from jobs.embedded_redis import EmbeddedRedis
from jobs.keys import KeyStore
from jobs.listing import LISTS
from jobs.settings import Settings
from jobs.store import JobStore
from tests.waiting import until

OWNERS = 5
RARE = 1000
QUERIES = (
    "limit=50",
    "limit=200",
    "status=succeeded",
    "status=failed",
    "status=running",
    "tag=common",
    "tag=rare",
    "tag=nobody-has-it",
    "status=failed&tag=common",
    "status=cancelled&tag=rare",
    "status=queued&tag=nobody-has-it",
    "owner=*&status=failed",
    "owner=*&tag=nobody-has-it",
    "owner=*&tag=rare&status=succeeded",
)


def fill(store: JobStore, count: int, owner: str) -> None:
    """Finished jobs of several owners: a tenth failed, a thousandth tagged `rare`, all `common`; a hundred of
    `owner` still wait."""
    request: dict[str, Any] = {
        "data": {"kernel": [[1.0, 0.2], [0.2, 1.0]], "targets": [1.0, -1.0]},
        "training": {"steps": 5},
        "method": {"name": "static_ntk"},
        "reuse": False,
    }
    for number in range(count):
        tags = ["common", *(["rare"] if number % RARE == 0 else []), f"run {number % 50}"]
        whose = owner if number % OWNERS == 0 else f"u_{number % OWNERS}"
        store.submit(SolveRequest.model_validate(request | {"tags": tags}), whose, request_hash=str(number))
        if number < count - 100:
            claim = store.claim("filler")
            assert claim is not None
            if number % 10:
                store.finish(claim, JobStatus.SUCCEEDED, artifact=f"{claim.id}.{claim.epoch}")
            else:
                store.finish(claim, JobStatus.FAILED, JobError(code="internal", message="for the benchmark"))


def timed(client: httpx.Client, query: str) -> float:
    """Milliseconds of one list."""
    begun = time.perf_counter()
    client.get(f"/v1/solves?{query}").raise_for_status()
    return 1e3 * (time.perf_counter() - begun)


def report(client: httpx.Client) -> None:
    """One line for each list."""
    print(f"{'list':36} {'alone':>14} {'ten at once':>16}   ms: median, longest")
    with ThreadPoolExecutor(10) as pool:
        for query in QUERIES:
            alone = [timed(client, query) for _ in range(20)]
            at_once = list(pool.map(lambda query: timed(client, query), [query] * 40))
            print(
                f"{query:36} {statistics.median(alone):6.1f} {max(alone):7.1f} "
                f"{statistics.median(at_once):8.1f} {max(at_once):7.1f}",
                flush=True,
            )


def rebuild(redis_client: Any, store: JobStore, client: httpx.Client) -> None:
    """Builds the lists of jobs that have none."""
    for key in list(redis_client.scan_iter(LISTS, count=1000)):
        redis_client.delete(key)
    pipe = redis_client.pipeline(transaction=False)
    for job_id in redis_client.zrange("dmft:jobs", 0, -1):
        pipe.hdel(f"dmft:job:{job_id}", "listed")
    pipe.execute()
    over, waits = threading.Event(), [0.0]

    def neighbour() -> None:
        while not over.wait(0.01):
            waits.append(timed(client, "limit=1"))

    thread = threading.Thread(target=neighbour)
    thread.start()
    begun = time.perf_counter()
    assert store.mend_lists()
    seconds = time.perf_counter() - begun
    over.set()
    thread.join()
    begun = time.perf_counter()
    assert not store.mend_lists()
    again = 1e3 * (time.perf_counter() - begun)
    print(f"lists built in {seconds:.1f} s, a neighbour waited {max(waits):.0f} ms at most")
    print(f"looked at again: {again:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=50_000)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="dmft-lists-") as folder,
        EmbeddedRedis(Path(folder) / "r") as server,
    ):
        redis_client = connect(server.url)
        settings = Settings(
            redis_url=server.url, data_dir=Path(folder), lease_seconds=3600, max_running_per_user=10**6
        )
        store, keys = JobStore(redis_client, settings), KeyStore(redis_client)
        key = keys.create("root", "admin")
        user = keys.authenticate(key)
        assert user is not None
        before = redis_client.info("memory")["used_memory"]
        begun = time.perf_counter()
        redis_client.config_set("appendfsync", "no")
        fill(store, arguments.jobs, user.id)
        redis_client.config_set("appendfsync", "always")
        size = redis_client.info("memory")["used_memory"] - before
        print(
            f"{arguments.jobs} jobs in {time.perf_counter() - begun:.0f} s, "
            f"{size / arguments.jobs / 1e3:.1f} kB of Redis for each"
        )
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        environment = {"DMFT_REDIS_URL": server.url, "DMFT_DATA_DIR": folder, "DMFT_PORT": str(port)}
        api = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "api", "--port", str(port)],
            env=environment | {"PATH": "/usr/bin:/bin", "DMFT_LOG_LEVEL": "ERROR"},
        )
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
            try:
                until(lambda: _answers(client), 60)
                report(client)
                rebuild(redis_client, store, client)
            finally:
                api.terminate()
                api.wait()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").is_success
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    main()
