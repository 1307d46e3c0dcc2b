"""The Python client against a running API."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from dmft_client import (
    ApiError,
    AuthenticationError,
    Client,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    Result,
    SolveCancelled,
    SolveFailed,
    WaitTimeout,
)
from dmft_schema import JobStatus
from jobs.store import JobStore
from tests import waiting
from tests.conftest import slow_request
from tests.serving import Background
from worker.supervisor import Supervisor

KERNEL = np.array([[1.0, 0.2], [0.2, 1.0]])
TARGETS = np.array([1.0, -1.0])


@pytest.fixture
def client(url: str, keys: dict[str, str]) -> Iterator[Client]:
    with Client(url, keys["ada"]) as client:
        yield client


def test_arrays_in_arrays_out(client: Client, supervisor: Supervisor, tmp_path: Path) -> None:
    solve = client.solve(
        kernel=KERNEL,
        targets=TARGETS,
        depth=2,
        gamma0=np.float32(0.5),
        steps=np.int64(6),
        method="dmft",
        samples=256,
        name="mine",
    )
    assert solve.status() is JobStatus.QUEUED
    supervisor.work()
    result = solve.wait(timeout=10).result()
    assert result.times.shape == result.loss.shape == (6,)
    assert result.predictions.shape == (6, 2)
    assert result.loss_standard_error is not None
    assert result.loss_truncation_error is not None
    assert result.phi(1).shape == result.g(2, 0, 3).shape == result.ntk(0).shape == (2, 2)
    np.testing.assert_allclose(result.phi(1, 2, 4), result.phi(1, 4, 2).T, rtol=1e-5)
    np.testing.assert_allclose(solve.kernel("phi", -1, t=0, s=-1), result.phi(2, 0, -1))
    assert result.loss_standard_deviation is not None
    np.testing.assert_allclose(result.loss_standard_deviation, 2 * result.loss_standard_error)
    assert result.diagnostics.samples == 256
    assert result.manifest["request"]["network"]["gamma0"] == 0.5
    assert result.complete

    result.save(tmp_path / "r.npz")
    again = Result.load(tmp_path / "r.npz")
    np.testing.assert_array_equal(again.loss, result.loss)
    attached = client.get(solve.id)
    assert attached.job().name == "mine"
    assert [s.id for s in client.list(status="succeeded")] == [solve.id]


def test_wrong_names_are_type_errors_with_a_hint(client: Client) -> None:
    with pytest.raises(TypeError, match="did you mean gamma0"):
        client.solve(kernel=KERNEL, targets=TARGETS, gama0=1.0)


def test_wrong_values_are_refused_before_anything_is_sent(keys: dict[str, str]) -> None:
    with (
        Client("http://127.0.0.1:9", keys["ada"]) as unreachable,
        pytest.raises(InvalidRequest, match=r"data: .*symmetric") as caught,
    ):
        unreachable.solve(kernel=KERNEL + np.triu(KERNEL), targets=TARGETS)
    assert caught.value.errors


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"kernel": KERNEL * np.nan, "targets": TARGETS}, "finite"),
        ({"kernel": KERNEL, "targets": TARGETS, "activation": "swish"}, "network.activation"),
        ({"kernel": KERNEL, "targets": TARGETS, "width": 5}, "method.width"),
        ({"dataset": "digits", "classes": [0, 1], "points": 10**6}, "data"),
        ({}, "data"),
    ],
)
def test_refusals_name_the_field(client: Client, keywords: dict, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        client.solve(**keywords)


def test_what_only_the_server_knows(client: Client, url: str) -> None:
    with pytest.raises(InvalidRequest, match=r"data\.dataset_id"):
        client.solve(dataset_id="0" * 64)
    with pytest.raises(NotFound):
        client.get("s_none")
    with Client(url, "dmft_wrong") as stranger, pytest.raises(AuthenticationError, match="unknown"):
        stranger.solve(kernel=KERNEL, targets=TARGETS)
    with pytest.raises(ApiError) as caught:
        client.solve(kernel=KERNEL, targets=TARGETS).result()
    assert caught.value.code == "job_not_finished"


def test_wait_that_runs_out_says_why(client: Client, store: JobStore) -> None:
    solve = client.solve(kernel=KERNEL, targets=TARGETS)
    with pytest.raises(WaitTimeout, match="no live worker"):
        solve.wait(timeout=0.1)
    assert solve.status() is JobStatus.QUEUED


def test_failure_cancellation_and_their_partial_results(
    client: Client, supervisor: Supervisor, store: JobStore, background: Background
) -> None:
    failing = client.solve(kernel=KERNEL, targets=TARGETS, learning_rate=50.0, samples=256)
    supervisor.work()
    with pytest.raises(SolveFailed, match="diverged") as caught:
        failing.wait().result()
    assert "learning_rate" in caught.value.error.advice
    partial = failing.result(partial=True)
    assert not partial.complete
    assert len(partial.loss) == caught.value.error.step

    running = client.solve(slow_request())
    background.work(supervisor)
    waiting.running(store, running.id)
    assert running.cancel().cancel_requested
    with pytest.raises(SolveCancelled):
        running.wait(20).result()
    assert len(running.result(partial=True).loss) > 0
    running.delete()
    with pytest.raises(NotFound):
        client.get(running.id)


def test_an_iteration_that_did_not_converge_is_warned_of(client: Client, supervisor: Supervisor) -> None:
    method = {"method": "alternating", "samples": 256, "max_iterations": 1}
    solve = client.solve(kernel=KERNEL, targets=TARGETS, depth=2, steps=4, **method)
    supervisor.work()
    with pytest.warns(UserWarning, match=r"not converged: stopped after 1 iterations.*method.max_iterations"):
        result = solve.wait(timeout=10).result()
    assert result.diagnostics.converged is False


def test_progress_is_shown(client: Client, supervisor: Supervisor, capsys: pytest.CaptureFixture) -> None:
    solve = client.solve(kernel=KERNEL, targets=TARGETS, method="static_ntk", steps=7, name="shown")
    supervisor.work()
    solve.wait(progress=True)
    shown = capsys.readouterr().err
    assert "shown" in shown
    assert "7/7" in shown


def test_events_follow_a_solve(client: Client, supervisor: Supervisor) -> None:
    solve = client.solve(kernel=KERNEL, targets=TARGETS, method="static_ntk")
    thread = threading.Thread(target=supervisor.work)
    thread.start()
    events = list(solve.events())
    thread.join()
    assert [e.data["status"] for e in events if e.kind == "status"] == ["queued", "running", "succeeded"]
    assert list(solve.events(after=events[-1].id)) == []


def test_uploads(client: Client, supervisor: Supervisor, tmp_path: Path) -> None:
    inputs = np.random.default_rng(1).normal(size=(4, 3))
    np.savez(tmp_path / "d.npz", x=inputs, y=TARGETS.repeat(2))
    first = client.upload(x=inputs, y=TARGETS.repeat(2))
    assert client.upload(tmp_path / "d.npz") == first
    solve = client.solve(dataset_id=first, method="static_ntk", steps=3)
    supervisor.work()
    assert solve.wait(10).result().predictions.shape == (3, 4)


class Flaky(httpx.BaseTransport):
    """Delivers every request, and loses the first answers."""

    def __init__(self, lost: int) -> None:
        self._inner = httpx.HTTPTransport()
        self.lost = lost

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._inner.handle_request(request)
        if self.lost:
            self.lost -= 1
            response.close()
            raise httpx.ReadError("the answer was lost", request=request)
        return response

    def close(self) -> None:
        self._inner.close()


def test_lost_answers_make_no_second_solve(url: str, keys: dict[str, str]) -> None:
    with httpx.Client(transport=Flaky(lost=2)) as http:
        client = Client(url, keys["ada"], http=http)
        solve = client.solve(kernel=KERNEL, targets=TARGETS)
        assert [s.id for s in client.list()] == [solve.id]


def test_same_key_twice_is_one_solve(client: Client) -> None:
    first, second = (client.solve(kernel=KERNEL, targets=TARGETS, idempotency_key="one") for _ in range(2))
    assert first.id == second.id


def test_pages_are_followed(client: Client) -> None:
    ids = [client.solve(slow_request(reuse=False)).id for _ in range(50)]
    for solve_id in ids[:10]:
        client.get(solve_id).cancel()
    more = [client.solve(slow_request(reuse=False)).id for _ in range(10)]
    assert [s.id for s in client.list()] == (ids + more)[::-1]


def test_no_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConnectionFailed, match="dmft serve"):
        Client()
    with (
        Client("http://127.0.0.1:9", "key", patience=0) as client,
        pytest.raises(ConnectionFailed, match="no answer from http"),
    ):
        client.capabilities()
