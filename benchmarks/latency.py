"""What a tiny solve waits for, from its submission to its result in hand, on a warm worker.

`python -m benchmarks latency`. A server as its users run it (`dmft serve`, two slots), and the Python client.
Each way to submit: median, 99th percentile, longest, and where the time goes, by the clock of Redis: to the
claim, to the end of the solve; what remains is HTTP and the client.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dmft_client import Client, Solve
from tests.e2e.conftest import Server, start, stop

TINY: dict[str, Any] = {
    "kernel": [[1.0, 0.2], [0.2, 1.0]],
    "targets": [1.0, -1.0],
    "depth": 1,
    "steps": 5,
    "method": "static_ntk",
    "reuse": False,
}
CLIENTS = 20


def timed(client: Client, **changes: Any) -> tuple[float, Solve]:
    """Seconds from submission to result, and the solve."""
    begun = time.perf_counter()
    solve = client.solve(**(TINY | changes))
    solve.wait()
    solve.result(partial=True)
    return time.perf_counter() - begun, solve


def _parts(solve: Solve) -> tuple[float, float]:
    """Seconds in the queue, and in the worker's hands."""
    job = solve.job()
    assert job.started_at is not None
    assert job.finished_at is not None
    queued = (job.started_at - job.created_at).total_seconds()
    return queued, (job.finished_at - job.started_at).total_seconds()


def _fail(client: Client) -> None:
    diverging = {"method": "dmft", "samples": 256, "learning_rate": 1e4, "steps": 60}
    _, solve = timed(client, **diverging)
    assert solve.status() == "failed"


def _one_user(client: Client) -> Iterator[tuple[str, list[tuple[float, Solve]]]]:
    yield "back to back", [timed(client) for _ in range(50)]
    for pause, count in ((0.3, 20), (3.0, 6)):
        found = []
        for _ in range(count):
            time.sleep(pause)
            found.append(timed(client))
        yield f"{pause:g} s apart", found
    found = []
    for _ in range(10):
        _fail(client)
        found.append(timed(client))
    yield "after a failed solve", found


def _many_clients(server: Server, each: int) -> list[float]:
    """All at once, each client one solve after another; each has had its first one before."""
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(server.url, server.key)) for _ in range(CLIENTS)]
        for client in clients:
            timed(client)
        with ThreadPoolExecutor(CLIENTS) as threads:
            found = list(threads.map(lambda client: [timed(client)[0] for _ in range(each)], clients))
    return [seconds for one in found for seconds in one]


def _row(name: str, seconds: list[float], *parts: float) -> None:
    ordered = sorted(seconds)
    median, most = ordered[len(ordered) // 2], ordered[-1]
    rare = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    cells = [median, rare, most, *parts]
    shown = " | ".join(f"{1e3 * cell:.0f}" for cell in cells)
    print(f"| {name} | {len(seconds)} | {shown} |", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = start(Path(folder) / "data", "--workers", "2")
        try:
            with Client(server.url, server.key) as client:
                for _ in range(8):
                    timed(client)
                print("milliseconds; of the parts, medians")
                print("| | solves | p50 | p99 | longest | queued | solved and stored |")
                print("|---|---|---|---|---|---|---|")
                for name, found in _one_user(client):
                    parts = zip(*(_parts(solve) for _, solve in found), strict=True)
                    middle = [sorted(part)[len(found) // 2] for part in parts]
                    _row(name, [seconds for seconds, _ in found], *middle)
            _row(f"{CLIENTS} clients at once", _many_clients(server, 10))
        finally:
            stop(server)


if __name__ == "__main__":
    main()
