"""A server whose disk is full: it answers, keeps what it accepted, and goes on by itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest

from dmft_schema import JobStatus
from tests import small_disk, waiting
from tests.conftest import slow_request, small_request
from tests.e2e.conftest import Server, start, stop

pytestmark = pytest.mark.slow

SMALL = small_request(reuse=False).model_dump(mode="json")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk.mounted(tmp_path / "disk", 32) as disk:
        yield disk


@pytest.fixture
def server(disk: Path) -> Iterator[Server]:
    running = start(disk / "data")
    yield running
    stop(running)


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {server.key}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as http:
        yield http


def clear(filler: Path) -> None:
    if filler.is_dir():
        shutil.rmtree(filler)
    else:
        filler.unlink()


def refused_for_room(answer: httpx.Response) -> bool:
    return answer.status_code == 507 and answer.json()["code"] == "storage_full"


@pytest.mark.parametrize("fill", [small_disk.fill, small_disk.use_up_inodes])
def test_full_while_a_solve_runs(
    server: Server, http: httpx.Client, disk: Path, fill: Callable[[Path], Path]
) -> None:
    done = http.post("/v1/solves", json=SMALL, headers={"Prefer": "wait=60"}).json()
    assert waiting.final(server.store, done["id"]) is JobStatus.SUCCEEDED
    running = http.post("/v1/solves", json=slow_request().model_dump(mode="json")).json()
    waiting.running(server.store, running["id"])
    queued = http.post("/v1/solves", json=SMALL).json()
    filler = fill(disk)

    refused = http.post("/v1/solves", json=SMALL)
    assert refused_for_room(refused), refused.text
    assert int(refused.headers["Retry-After"]) > 0
    for path in (f"/v1/solves/{done['id']}/result", f"/v1/solves/{done['id']}/result.npz", "/v1/solves"):
        assert waiting.until(lambda path=path: http.get(path).status_code == 200), path
    http.post(f"/v1/solves/{running['id']}/cancel")
    assert waiting.until(lambda: http.get(f"/v1/solves/{running['id']}").json()["status"] != "running")
    waits = http.get(f"/v1/solves/{queued['id']}").json()
    assert waits["status"] == "queued"
    assert "storage is full" in waits["waiting_reason"]

    clear(filler)
    assert waiting.final(server.store, queued["id"]) is JobStatus.SUCCEEDED
    assert http.get(f"/v1/solves/{queued['id']}").json()["attempts"] == 1
    assert http.post("/v1/solves", json=SMALL).status_code == 202


def test_not_a_byte_left_for_redis_either(server: Server, http: httpx.Client, disk: Path) -> None:
    """Redis ends at every write that it cannot make; it is started again until it can."""
    accepted = [
        http.post("/v1/solves", json=slow_request(name=str(i)).model_dump(mode="json")).json()["id"]
        for i in range(3)
    ]
    waiting.running(server.store, accepted[0])
    first = small_disk.fill(disk)
    waiting.until(lambda: not (server.data_dir / "redis" / "reserve").exists())
    second = small_disk.fill(disk, "what-the-reserve-gave-up")
    log = server.data_dir / "redis" / "redis.log"
    restarts = log.read_text(errors="replace").count("Can't recover from AOF write error")
    assert waiting.until(
        lambda: (
            log.read_text(errors="replace").count("Can't recover from AOF write error") > restarts
            or http.get("/readyz").status_code == 503
        ),
    )
    for _ in range(20):
        answer = http.post("/v1/solves", json=SMALL)
        assert answer.status_code in (503, 507), answer.text
        assert "Retry-After" in answer.headers
    assert waiting.until(lambda: http.get(f"/v1/solves/{accepted[2]}").status_code == 200)
    clear(first)
    clear(second)
    for job_id in accepted:
        assert waiting.until(
            lambda job_id=job_id: http.post(f"/v1/solves/{job_id}/cancel").status_code == 202, 60
        )
    for job_id in accepted:
        assert waiting.until(
            lambda job_id=job_id: http.get(f"/v1/solves/{job_id}").json().get("status") == "cancelled", 60
        )
    assert waiting.until(lambda: http.post("/v1/solves", json=SMALL).status_code == 202, 60)
    assert waiting.until(lambda: (server.data_dir / "redis" / "reserve").exists())


def test_a_full_folder_of_results_on_a_disk_of_its_own(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMFT_ARTIFACT_DIR", str(disk / "artifacts"))
    server = start(tmp_path / "data")
    try:
        headers = {"Authorization": f"Bearer {server.key}"}
        with httpx.Client(base_url=server.url, headers=headers, timeout=60) as http:
            filler = small_disk.fill(disk)
            assert refused_for_room(http.post("/v1/solves", json=SMALL))
            npz = BytesIO()
            np.savez(npz, x=np.eye(3), y=np.ones(3))
            assert refused_for_room(http.post("/v1/datasets", content=npz.getvalue()))
            clear(filler)
            assert http.post("/v1/datasets", content=npz.getvalue()).status_code == 201
            done = http.post("/v1/solves", json=SMALL).json()
            assert waiting.final(server.store, done["id"]) is JobStatus.SUCCEEDED
    finally:
        stop(server)


def test_started_on_a_full_disk_it_serves_what_it_has(disk: Path) -> None:
    first = start(disk / "data")
    headers = {"Authorization": f"Bearer {first.key}"}
    with httpx.Client(base_url=first.url, headers=headers, timeout=60) as http:
        done = http.post("/v1/solves", json=SMALL).json()
        assert waiting.final(first.store, done["id"]) is JobStatus.SUCCEEDED
    stop(first)
    filler = small_disk.fill(disk)
    again = start(disk / "data")
    try:
        with httpx.Client(base_url=again.url, headers=headers, timeout=60) as http:
            assert waiting.until(lambda: http.get(f"/v1/solves/{done['id']}/result").status_code == 200)
            assert refused_for_room(http.post("/v1/solves", json=SMALL))
            clear(filler)
            assert waiting.until(lambda: http.post("/v1/solves", json=SMALL).status_code == 202)
    finally:
        stop(again)
