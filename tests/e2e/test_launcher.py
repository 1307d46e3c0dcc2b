"""What the launcher owes its parts: starting again without end, the right order of going, private files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from dmft_client import Client
from dmft_schema import JobStatus
from jobs.connection import connect
from jobs.embedded_redis import EmbeddedRedis
from jobs.settings import Settings
from jobs.store import JobStore
from tests import waiting
from tests.conftest import slow_request, small_request
from tests.e2e.conftest import Server, gone, start, stop, wait_until_gone

pytestmark = pytest.mark.slow

SMALL = small_request(reuse=False)
PARTS = {"api": "cli.main api", "worker": "celery", "redis": "redis-server", "guard": "redis_guard"}


def find(server: Server, part: str) -> int | None:
    found = (pid for pid, command in server.descendants().items() if PARTS[part] in command)
    return next(found, None)


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=30).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("part", sorted(PARTS))
def test_a_part_killed_many_times_within_seconds_comes_back(
    server: Server, client: Client, part: str
) -> None:
    for _ in range(6):
        pid = waiting.until(lambda: find(server, part))
        os.kill(pid, signal.SIGKILL)
        wait_until_gone({pid: part})
    assert waiting.until(lambda: ready(server.url), 60)
    assert waiting.until(lambda: find(server, "guard"))
    assert server.process.poll() is None
    assert client.solve(SMALL).wait(120).status() is JobStatus.SUCCEEDED


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_when_the_launcher_goes_running_jobs_are_given_back_first(tmp_path: Path, number: int) -> None:
    server = start(tmp_path / "d")
    children = server.descendants()
    with Client(server.url, server.key) as client:
        solve = client.solve(slow_request())
        waiting.running(server.store, solve.id)
    server.process.send_signal(number)
    server.process.communicate(timeout=60)
    wait_until_gone(children)
    with EmbeddedRedis(tmp_path / "d" / "redis") as redis_alone:
        job = JobStore(connect(redis_alone.url), Settings(data_dir=tmp_path / "d")).get(solve.id)
    assert (job.status, job.attempts) == ("queued", 0)


def test_a_frozen_redis_of_an_earlier_server_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    first = start(tmp_path / "d")
    with Client(first.url, first.key) as client:
        kept = client.solve(SMALL).wait(120)
    old = find(first, "redis")
    assert old is not None
    rest = {pid: command for pid, command in first.descendants().items() if pid != old}
    os.kill(old, signal.SIGSTOP)
    first.process.kill()
    first.process.communicate()
    second = start(tmp_path / "d")
    try:
        try:
            os.kill(old, signal.SIGCONT)
        except ProcessLookupError:
            assert gone({old: ""})
        wait_until_gone({old: "", **rest})
        with Client(second.url, second.key) as client:
            assert client.get(kept.id).status() is JobStatus.SUCCEEDED
            worker = second.worker_pid()
            os.kill(worker, signal.SIGKILL)
            wait_until_gone({worker: ""})
            assert client.solve(SMALL).wait(120).status() is JobStatus.SUCCEEDED
        listed = subprocess.run(
            [sys.executable, "-m", "cli.main", "keys", "--data-dir", str(tmp_path / "d"), "list"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (listed.returncode, listed.stderr) == (0, "")
        assert "admin" in listed.stdout
        assert waiting.until(lambda: ready(second.url))
    finally:
        stop(second)


def test_a_socket_taken_away_comes_back(server: Server) -> None:
    (server.data_dir / "redis" / "redis.sock").unlink()
    assert waiting.until(lambda: (server.data_dir / "redis" / "redis.sock").exists())
    assert waiting.until(lambda: ready(server.url))


def test_everything_in_the_data_folder_is_private(server: Server, client: Client) -> None:
    import numpy as np

    solve = client.solve(inputs=np.eye(3), targets=[1.0, -1.0, 1.0], method="static_ntk", steps=3)
    solve.wait(120)
    npz = server.data_dir.parent / "upload.npz"
    np.savez(npz, x=np.eye(3), y=np.ones(3))
    headers = {"Authorization": f"Bearer {server.key}"}
    uploaded = httpx.post(f"{server.url}/v1/datasets", content=npz.read_bytes(), headers=headers)
    assert uploaded.status_code == 201, uploaded.text
    found = [server.data_dir, *server.data_dir.rglob("*")]
    names = {path.name for path in found}
    assert {"result.json", "result.npz", "data.json", "api.log", "server.json", "redis.log"} <= names
    for path in found:
        assert path.lstat().st_mode & 0o077 == 0, (path, oct(path.lstat().st_mode))
        if path.is_file():
            assert path.stat().st_mode & 0o777 == 0o600, path


def test_logs_are_json_with_ids_and_without_keys(server: Server) -> None:
    headers = {"Authorization": f"Bearer {server.key}", "X-Request-ID": "wanted.1"}
    httpx.get(f"{server.url}/v1/solves?tag={server.key}", headers=headers)
    solve = httpx.post(f"{server.url}/v1/solves", json=SMALL.model_dump(mode="json"), headers=headers).json()
    waiting.final(server.store, solve["id"])
    logs = server.data_dir / "logs"

    def logged() -> list[dict]:
        return [json.loads(line) for line in (logs / "api.log").read_text().splitlines()]

    waiting.until(lambda: any(line.get("request_id") == "wanted.1" for line in logged()))
    for file in logs.iterdir():
        assert server.key not in file.read_text(), file
    for line in (logs / "worker.log").read_text().splitlines():
        assert {"time", "level", "message"} <= set(json.loads(line))


def test_logs_are_bounded_under_many_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMFT_LOG_BYTES", "4000")
    monkeypatch.setenv("DMFT_LOG_FILES", "1")
    server = start(tmp_path / "d")
    try:
        with httpx.Client(base_url=server.url) as http:
            for _ in range(100):
                http.get("/healthz?" + "x" * 500)
        files = list((server.data_dir / "logs").glob("api.log*"))
        assert {path.name for path in files} == {"api.log", "api.log.1"}
        assert all(path.stat().st_size < 6000 for path in files)
    finally:
        stop(server)
