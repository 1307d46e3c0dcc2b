"""The whole path as processes: `dmft serve`, the client, and what may go wrong between them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from dmft_client import Client, ConnectionFailed
from dmft_schema import JobStatus
from tests import waiting
from tests.conftest import slow_request
from tests.e2e.conftest import Server, start, stop, wait_until_gone

pytestmark = pytest.mark.slow


def test_a_solve_from_request_to_result(client: Client, tmp_path: Path) -> None:
    result = (
        client.solve(
            dataset="digits",
            classes=[0, 1],
            points=10,
            test_points=4,
            depth=2,
            steps=30,
            samples=2048,
        )
        .wait(180)
        .result()
    )
    assert result.loss[0] == pytest.approx(1.0)
    assert result.loss[-1] < 0.5
    assert result.test_predictions is not None
    assert result.test_predictions.shape == (30, 4)
    lazy = (
        client.solve(dataset="digits", classes=[0, 1], points=10, depth=2, steps=30, method="static_ntk")
        .wait(180)
        .result()
    )
    assert result.loss[-1] < lazy.loss[-1]
    result.save(tmp_path / "result.npz")
    with np.load(tmp_path / "result.npz") as arrays:
        assert arrays["phi_1"].shape == (30, 10, 30, 10)


def test_the_example_of_the_readme(server: Server, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Pasted, it prints what the README says that it prints, ids and the last digits aside (rounding in
    float32 depends on the machine and its threads, and decides which directions join). A worker that has just
    ended another solve may have begun this one before it is printed."""
    monkeypatch.setenv("DMFT_DATA_DIR", str(server.data_dir))
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    code, rest = readme.split("<!-- example -->\n```python\n")[1].split("```\n", 1)
    expected = [line.strip() for line in rest.strip().split("\n\n")[0].splitlines()]
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    names["client"].close()
    printed = capsys.readouterr().out.splitlines()
    number = re.compile(r"\d+\.\d+")
    for got, promised in zip(printed, expected, strict=True):
        got = got.replace(" running>", " queued>") if promised.endswith(" queued>") else got
        texts = [" ".join(number.sub("#", re.sub(r"s_\w+", "ID", line)).split()) for line in (got, promised)]
        assert texts[0] == texts[1]
        numbers = [[float(n) for n in number.findall(line)] for line in (got, promised)]
        assert numbers[0] == pytest.approx(numbers[1], rel=0.03, abs=2e-5)


def test_worker_killed_in_mid_solve(server: Server, client: Client) -> None:
    """SIGKILL of the worker: its solver goes too, the job runs again and completes once."""
    solve = client.solve(slow_request(training={"steps": 6_000, "learning_rate": 0.001}))
    waiting.running(server.store, solve.id)
    worker = server.worker_pid()
    solvers = {pid: c for pid, c in server.descendants().items() if "solver_process" in c}
    assert solvers
    os.kill(worker, signal.SIGKILL)
    wait_until_gone({worker: "", **solvers})
    solve.wait(180)
    assert solve.status() is JobStatus.SUCCEEDED
    job = solve.job()
    assert job.attempts == 2
    statuses = [e.data["status"] for e in solve.events() if e.kind == "status"]
    assert statuses == ["queued", "running", "queued", "running", "succeeded"]
    results = (server.data_dir / "artifacts" / "results").glob(f"{solve.id}.*")
    assert [folder.name for folder in results] == [f"{solve.id}.2"]
    assert len(solve.result().loss) == 6_000


def test_cancel_of_a_running_and_of_a_queued_job(server: Server, client: Client) -> None:
    running = client.solve(slow_request(name="running"))
    waiting.running(server.store, running.id)
    queued = client.solve(slow_request(name="queued"))
    assert queued.cancel().status == "cancelled"
    assert running.cancel().cancel_requested
    assert running.wait(120).status() is JobStatus.CANCELLED
    assert 0 < len(running.result(partial=True).loss) < 100_000


def test_same_idempotency_key_twice(server: Server, client: Client) -> None:
    request = slow_request(name="once", training={"steps": 500})
    handles = [client.solve(request, idempotency_key="k1") for _ in range(2)]
    assert handles[0].id == handles[1].id
    handles[0].wait(120)
    assert client.solve(request, idempotency_key="k1").id == handles[0].id
    assert handles[0].job().attempts == 1


def test_api_killed_is_started_again_and_running_jobs_do_not_notice(server: Server, client: Client) -> None:
    solve = client.solve(slow_request(training={"steps": 6_000, "learning_rate": 0.001}, name="through"))
    waiting.running(server.store, solve.id)
    api = next(pid for pid, command in server.descendants().items() if "cli.main api" in command)
    os.kill(api, signal.SIGKILL)
    assert solve.wait(180).status() is JobStatus.SUCCEEDED
    assert solve.job().attempts == 1


def test_redis_killed_is_started_again_and_nothing_is_lost(server: Server, client: Client) -> None:
    solve = client.solve(slow_request(training={"steps": 6_000, "learning_rate": 0.001}, name="kept"))
    waiting.running(server.store, solve.id)
    redis_pid = next(pid for pid, command in server.descendants().items() if "redis-server" in command)
    os.kill(redis_pid, signal.SIGKILL)
    assert solve.wait(180).status() is JobStatus.SUCCEEDED
    assert solve.job().attempts == 1


def test_key_file_is_private_and_the_server_is_found(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (server.data_dir / "admin.key").stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("DMFT_DATA_DIR", str(server.data_dir))
    with Client() as found:
        assert found.url == server.url
        assert found.capabilities().methods


def test_second_server_on_the_same_folder_is_refused(server: Server) -> None:
    again = subprocess.run(
        [sys.executable, "-m", "cli.main", "serve", "--port", "0", "--data-dir", str(server.data_dir)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert again.returncode == 1
    assert "another server is using" in again.stderr
    assert "Traceback" not in again.stderr
    assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_port_in_use_is_said_so(server: Server, tmp_path: Path) -> None:
    port = str(httpx.URL(server.url).port)
    again = subprocess.run(
        [sys.executable, "-m", "cli.main", "serve", "--port", port, "--data-dir", str(tmp_path / "d")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert again.returncode == 1
    assert f"port {port}" in again.stderr
    assert "--port" in again.stderr


def test_stop_gives_running_jobs_back_and_a_new_start_finishes_them(tmp_path: Path) -> None:
    first = start(tmp_path / "d")
    with Client(first.url, first.key, patience=0) as client:
        solve = client.solve(slow_request(training={"steps": 6_000, "learning_rate": 0.001}))
        waiting.running(first.store, solve.id)
        children = first.descendants()
        stop(first)
        wait_until_gone(children)
        assert not (tmp_path / "d" / "server.json").exists()
        with pytest.raises(ConnectionFailed):
            client.capabilities()
    second = start(tmp_path / "d")
    with Client(second.url, second.key) as client:
        assert second.key == first.key
        job = client.get(solve.id).wait(180).job()
        assert (job.status, job.attempts) == ("succeeded", 1)
    stop(second)


def test_launcher_killed_leaves_no_process(tmp_path: Path) -> None:
    server = start(tmp_path / "d")
    with Client(server.url, server.key) as client:
        solve = client.solve(slow_request())
        waiting.running(server.store, solve.id)
    children = server.descendants()
    assert len(children) >= 4  # redis, worker, solver, api
    server.process.kill()
    server.process.communicate()
    wait_until_gone(children)
