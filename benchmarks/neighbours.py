"""How long a client that asks for little waits beside hostile ones: `python -m benchmarks.neighbours`.

On a server as its users run it, with the neighbour in a process of its own. Prints for each kind how long it
took, the neighbour's longest and 99th-percentile wait, and the largest memory of the API's processes.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from tests.e2e.conftest import Server, resident_bytes, start, stop

_NEIGHBOUR = """
import httpx, pathlib, sys, time
waits = []
headers = {"Authorization": "Bearer " + sys.argv[2]}
with httpx.Client(base_url=sys.argv[1], headers=headers, timeout=120) as client:
    while not pathlib.Path(sys.argv[3]).exists():
        begun = time.perf_counter()
        client.get("/v1/solves?limit=1").raise_for_status()
        waits.append(time.perf_counter() - begun)
        time.sleep(0.01)
print(*waits)
"""


def measure(server: Server, work: Callable[[], Any]) -> tuple[float, list[float], float]:
    """Seconds of the work, the neighbour's waits in seconds, the largest memory in bytes."""
    api = next(pid for pid, command in server.descendants().items() if "cli.main api" in command)
    over, peak = threading.Event(), [0.0]

    def watch() -> None:
        while not over.wait(0.02):
            peak[0] = max(peak[0], resident_bytes(api))

    watcher = threading.Thread(target=watch)
    watcher.start()
    with tempfile.TemporaryDirectory() as folder:
        end = Path(folder) / "end"
        command = [sys.executable, "-c", _NEIGHBOUR, server.url, server.key, str(end)]
        neighbour = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        time.sleep(1.0)
        begun = time.monotonic()
        work()
        seconds = time.monotonic() - begun
        end.touch()
        printed, _ = neighbour.communicate()
    over.set()
    watcher.join()
    return seconds, sorted(map(float, printed.split())), peak[0]


def _kinds(server: Server) -> dict[str, Callable[[], Any]]:
    def post(path: str, body: bytes, key: str = server.key) -> None:
        kind = "application/json" if path == "/v1/solves" else "application/octet-stream"
        headers = {"Content-Type": kind} | ({"Authorization": f"Bearer {key}"} if key else {})
        httpx.post(server.url + path, content=body, headers=headers, timeout=300)

    def at_once(count: int, path: str, bodies: list[bytes], key: str = server.key) -> None:
        with ThreadPoolExecutor(count) as clients:
            list(clients.map(lambda index: post(path, bodies[index % len(bodies)], key), range(count)))

    def uploads(seeds: range) -> list[bytes]:
        found = []
        for seed in seeds:
            rng, buffer = np.random.default_rng(seed), io.BytesIO()
            np.savez(buffer, x=rng.normal(size=(1000, 1000)), y=rng.normal(size=1000))
            found.append(buffer.getvalue())
        return found

    def members() -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for index in range(100_000):
                archive.writestr(f"m{index}.npy", b"")
        return buffer.getvalue()

    small = {"data": {"kernel": [[1]], "targets": [1]}}
    factor = np.random.default_rng(0).normal(size=(1500, 1505))
    kernel = factor @ factor.T / 1500
    large = {
        "data": {"kernel": ((kernel + kernel.T) / 2).tolist(), "targets": [1.0] * 1500},
        "network": {"depth": 1},
        "training": {"steps": 2},
        "method": {"name": "static_ntk"},
        "outputs": {"kernels": []},
    }
    wrong = json.dumps(small | {"outputs": {"kernels": ["x"] * 600_000}}).encode()
    unknown = json.dumps(small | {f"k{index}": 1 for index in range(200_000)}).encode()
    valid, archive = json.dumps(large).encode(), members()
    one, many = uploads(range(1)), uploads(range(1, 25))
    nothing = b"[" * 60_000_000
    return {
        "nothing": lambda: time.sleep(3),
        "6 bodies of 60 MB without a key": lambda: at_once(6, "/v1/solves", [nothing], ""),
        "600,000 wrong outputs.kernels": lambda: post("/v1/solves", wrong),
        "200,000 unknown keys": lambda: post("/v1/solves", unknown),
        "a kernel of P = 1500, 50 MB": lambda: post("/v1/solves", valid),
        "24 identical uploads of 8 MB": lambda: at_once(24, "/v1/datasets", one),
        "24 uploads of 8 MB": lambda: at_once(24, "/v1/datasets", many),
        "an upload of 100,000 arrays": lambda: post("/v1/datasets", archive),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = start(Path(folder) / "data")
        try:
            print("| beside | seconds | longest wait, ms | 99%, ms | memory, MB |\n|---|---|---|---|---|")
            for name, work in _kinds(server).items():
                seconds, waits, memory = measure(server, work)
                longest, usual = 1e3 * waits[-1], 1e3 * waits[int(0.99 * len(waits))]
                print(
                    f"| {name} | {seconds:.1f} | {longest:.0f} | {usual:.0f} | {memory / 1e6:.0f} |",
                    flush=True,
                )
        finally:
            stop(server)


if __name__ == "__main__":
    main()
