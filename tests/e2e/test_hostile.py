"""One hostile client of each kind beside a well-behaved one, on a server as its users run it.

What is tested is that the neighbour is served while the hostile request is on its way, and how much memory
the API takes; how long the neighbour waits is measured by `python -m benchmarks.neighbours`.
"""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from tests import waiting
from tests.e2e.conftest import Server, _descendants, resident_bytes

pytestmark = pytest.mark.slow

MOST_BYTES = 500e6
KERNEL = {"data": {"kernel": [[1.0, 0.2], [0.2, 1.0]], "targets": [1.0, -1.0]}}


def part(server: Server, words: str) -> int:
    return next(pid for pid, command in server.descendants().items() if words in command)


class Neighbour:
    """A client that asks for little, all the time, and keeps an eye on the memory of the API."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._api = part(server, "cli.main api")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.served = 0
        self.longest = 0.0
        self.peak = 0.0

    def _ask(self) -> None:
        headers = {"Authorization": f"Bearer {self._server.key}"}
        with httpx.Client(base_url=self._server.url, headers=headers, timeout=60) as client:
            while not self._over.is_set():
                begun = time.monotonic()
                assert client.get("/v1/solves", params={"limit": 1}).status_code == 200
                self.longest = max(self.longest, time.monotonic() - begun)
                self.served += 1
                self.peak = max(self.peak, resident_bytes(self._api))
                self._over.wait(0.01)

    def __enter__(self) -> Neighbour:
        self._thread.start()
        waiting.until(lambda: self.served > 3)
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.fixture
def neighbour(server: Server) -> Iterator[Neighbour]:
    with Neighbour(server) as neighbour:
        yield neighbour


def post(server: Server, path: str, body: bytes, kind: str, *, key: bool = True) -> httpx.Response:
    headers = {"Content-Type": kind} | ({"Authorization": f"Bearer {server.key}"} if key else {})
    return httpx.post(server.url + path, content=body, headers=headers, timeout=300)


def large_kernel() -> bytes:
    points = 900
    factor = np.random.default_rng(0).normal(size=(points, points + 5))
    kernel = factor @ factor.T / points
    body: dict[str, Any] = {
        "data": {"kernel": ((kernel + kernel.T) / 2).tolist(), "targets": [1.0] * points},
        "network": {"depth": 1},
        "training": {"steps": 2},
        "method": {"name": "static_ntk"},
        "outputs": {"kernels": []},
    }
    return json.dumps(body).encode()


BODIES: dict[str, tuple[Callable[[], bytes], int]] = {
    "wrong kernels": (lambda: json.dumps(KERNEL | {"outputs": {"kernels": ["x"] * 600_000}}).encode(), 422),
    "unknown keys": (lambda: json.dumps(KERNEL | {f"k{i}": 1 for i in range(200_000)}).encode(), 422),
    "lists of nothing": (lambda: b'{"data":[' + b"[]," * 7_000_000 + b"[]]}", 422),
    "numbers nowhere": (lambda: b'{"data":[' + b"0.1," * 15_000_000 + b"1]}", 422),
    "one long row": (lambda: b'{"data":{"kernel":[[' + b"1," * 20_000_000 + b"1]]}}", 422),
    "wrong steps": (
        lambda: json.dumps(KERNEL | {"outputs": {"kernel_times": [-(10**6)] * 90_000}}).encode(),
        422,
    ),
    "nested lists": (lambda: b'{"data":' + b"[" * 10_000_000 + b"]" * 10_000_000 + b"}", 422),
    "a long number": (lambda: b'{"data":' + b"9" * 20_000_000 + b"}", 422),
    "a long text": (lambda: json.dumps(KERNEL | {"name": "x" * 50_000_000}).encode(), 422),
    "not JSON": (lambda: b"{" + b" " * 50_000_000, 422),
    "not JSON in the end": (lambda: json.dumps(KERNEL).encode() + b"," * 3_000_000, 400),
    "a large kernel": (large_kernel, 202),
}


@pytest.mark.parametrize("name", BODIES)
def test_large_bodies(server: Server, neighbour: Neighbour, name: str) -> None:
    make, status = BODIES[name]
    body = make()
    before = neighbour.served
    answer = post(server, "/v1/solves", body, "application/json")
    assert answer.status_code == status, answer.text
    assert len(answer.content) < 20_000
    assert neighbour.served - before >= 3
    assert neighbour.peak < MOST_BYTES


def test_bodies_of_nobody(server: Server, neighbour: Neighbour) -> None:
    body = b"[" * 30_000_000
    before = neighbour.peak
    with ThreadPoolExecutor(6) as clients:
        jobs = [
            clients.submit(post, server, "/v1/solves", body, "application/json", key=False) for _ in range(6)
        ]
        assert {job.result().status_code for job in jobs} == {401}
    assert neighbour.peak < before + 20e6  # less than one of the six bodies


def npz(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    buffer = io.BytesIO()
    np.savez(buffer, x=rng.normal(size=(500, 1000)), y=rng.normal(size=500))
    return buffer.getvalue()


@pytest.mark.parametrize("seeds", [[0] * 12, list(range(1, 13))], ids=["identical", "different"])
def test_uploads_at_the_same_time(server: Server, neighbour: Neighbour, seeds: list[int]) -> None:
    kind = "application/octet-stream"
    with ThreadPoolExecutor(12) as clients:
        uploads = [clients.submit(post, server, "/v1/datasets", npz(seed), kind) for seed in seeds]
        answers = [upload.result() for upload in uploads]
    assert {answer.status_code for answer in answers} <= {200, 201}, [answer.text for answer in answers]
    assert sum(answer.status_code == 201 for answer in answers) == len(set(seeds))
    assert len({answer.json()["id"] for answer in answers}) == len(set(seeds))
    assert neighbour.peak < MOST_BYTES


def test_many_small_identical_uploads(server: Server) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.eye(3), y=np.arange(3.0))
    body, kind = buffer.getvalue(), "application/octet-stream"
    with ThreadPoolExecutor(24) as clients:
        uploads = [clients.submit(post, server, "/v1/datasets", body, kind) for _ in range(240)]
        statuses = [upload.result().status_code for upload in uploads]
    assert statuses.count(201) == 1
    assert statuses.count(200) == 239


def test_an_upload_of_a_hundred_thousand_arrays(server: Server, neighbour: Neighbour) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for index in range(100_000):
            archive.writestr(f"m{index}.npy", b"")
    answer = post(server, "/v1/datasets", buffer.getvalue(), "application/octet-stream")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_npz")
    assert "100000 arrays" in answer.json()["detail"]
    assert len(answer.content) < 1000
    assert neighbour.peak < MOST_BYTES


def test_a_process_for_large_bodies_that_is_killed_is_replaced(server: Server) -> None:
    body = large_kernel()
    assert post(server, "/v1/solves", body, "application/json").status_code == 202
    api = part(server, "cli.main api")
    with ThreadPoolExecutor(1) as client:
        upload = client.submit(post, server, "/v1/solves", body, "application/json")
        while not upload.done():
            for pid, command in _descendants(api).items():
                if "spawn_main" in command:
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        assert upload.result().status_code in (202, 413)
    assert post(server, "/v1/solves", body, "application/json").status_code == 202


def test_a_frozen_store_stops_no_sign_of_life(server: Server) -> None:
    """Sixty requests wait for it; /healthz and the page answer, /readyz and the others say 503 in the end."""
    redis = part(server, "redis-server")
    headers = {"Authorization": f"Bearer {server.key}"}

    def ask() -> int:
        return httpx.get(f"{server.url}/v1/solves", headers=headers, timeout=120).status_code

    with ThreadPoolExecutor(60) as clients:
        os.kill(redis, signal.SIGSTOP)
        try:
            waits = [clients.submit(ask) for _ in range(60)]
            for _ in range(20):
                assert httpx.get(f"{server.url}/healthz", timeout=30).status_code == 200
                assert not all(wait.done() for wait in waits)
            assert httpx.get(f"{server.url}/", timeout=30).status_code == 200
            assert httpx.get(f"{server.url}/v1/capabilities", timeout=30).status_code == 200
            assert httpx.get(f"{server.url}/readyz", timeout=60).status_code == 503
            assert {wait.result() for wait in waits} == {503}
        finally:
            os.kill(redis, signal.SIGCONT)
    waiting.until(lambda: ask() == 200)


def test_a_store_that_freezes_breaks_no_stream(server: Server) -> None:
    redis = part(server, "redis-server")
    client = httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.key}"}, timeout=60)
    request = KERNEL | {
        "training": {"steps": 100_000, "learning_rate": 0.001},
        "method": {"name": "finite_width", "width": 64, "ensemble": 1},
        "outputs": {"kernels": []},
        "reuse": False,
    }
    job = client.post("/v1/solves", json=request).json()["id"]
    with client.stream("GET", f"/v1/solves/{job}/events") as answer:
        lines = answer.iter_lines()
        assert next(line for line in lines if "progress" in line)
        os.kill(redis, signal.SIGSTOP)
        try:
            assert next(line for line in lines if line.startswith(": ping"))
            assert next(line for line in lines if line.startswith(": ping"))
        finally:
            os.kill(redis, signal.SIGCONT)

        def cancelled() -> bool:
            return client.post(f"/v1/solves/{job}/cancel").status_code == 202

        waiting.until(cancelled, 60)
        assert "cancelled" in "\n".join(lines)
    client.close()
