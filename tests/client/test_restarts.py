"""What the client does while a server is away, comes back, or has no time: real servers on real sockets."""

from __future__ import annotations

import email.utils
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import uvicorn

from api.main import create_app
from dmft_client import (
    ApiError,
    Client,
    ConnectionFailed,
    NotFound,
    Solve,
    UnexpectedAnswer,
    WaitTimeout,
    transport,
)
from dmft_schema import Capabilities, JobStatus
from jobs.settings import Settings
from jobs.store import JobStore
from tests import waiting
from tests.conftest import slow_request
from tests.e2e.conftest import start, stop
from tests.serving import Background
from worker.supervisor import Supervisor

KERNEL = [[1.0, 0.2], [0.2, 1.0]]
SMALL = {"kernel": KERNEL, "targets": [1.0, -1.0], "method": "static_ntk", "steps": 3}


@contextmanager
def api(settings: Settings, port: int) -> Iterator[None]:
    """The real API on this port, for a while."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        server = uvicorn.Server(
            uvicorn.Config(create_app(settings), log_level="warning", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, args=[[listener]])
        thread.start()
        waiting.until(lambda: server.started)
        yield
        server.should_exit = True
        thread.join()


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Calls:
    """Calls in threads, and what they ended with."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self.ended: dict[str, object] = {}

    def start(self, name: str, call: Callable[[], object]) -> None:
        def run() -> None:
            try:
                self.ended[name] = call()
            except Exception as error:
                self.ended[name] = error

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()

    def join(self) -> dict[str, object]:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
        return self.ended


def test_calls_go_on_when_the_server_is_back(
    settings: Settings,
    port: int,
    keys: dict[str, str],
    store: JobStore,
    supervisor: Supervisor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """All that may be repeated, among them a submission, a stream, and a wait without an end."""
    monkeypatch.setattr(transport, "_SILENT_SECONDS", 0.3)
    caplog.set_level(logging.WARNING, "dmft_client")
    client, calls = Client(f"http://127.0.0.1:{port}", keys["ada"]), Calls()
    with api(settings, port):
        solve = client.solve(**SMALL)
        other = client.solve(**SMALL, reuse=False)
        events = solve.events()
        assert next(events).data["status"] == "queued"
    calls.start("wait", lambda: client.get(solve.id).wait(progress=False).status())
    calls.start("solve", lambda: client.solve(**SMALL, reuse=False, idempotency_key="k").id)
    calls.start("list", lambda: len(list(client.list())))
    calls.start("events", lambda: [e.data["status"] for e in events if e.kind == "status"])
    calls.start("cancel", lambda: other.cancel().status)
    # Until it is away for long enough for all of them to have been told so.
    waiting.until(lambda: len([r for r in caplog.records if "trying again" in r.message]) >= 5)
    assert calls.ended == {}
    with api(settings, port):
        waiting.until(lambda: {"solve", "list", "cancel"} <= calls.ended.keys())
        while "wait" not in calls.ended or "events" not in calls.ended:
            supervisor.work()
        ended = calls.join()
        assert ended["wait"] is JobStatus.SUCCEEDED
        assert ended["events"] == ["running", "succeeded"]
        assert client.solve(**SMALL, reuse=False, idempotency_key="k").id == ended["solve"]
        assert len(list(client.list())) == 3


def test_a_wait_that_runs_out_says_that_the_server_is_away(
    settings: Settings, port: int, keys: dict[str, str]
) -> None:
    client = Client(f"http://127.0.0.1:{port}", keys["ada"], patience=0.2)
    with api(settings, port):
        solve = client.solve(**SMALL)
    begun = time.monotonic()
    with pytest.raises(WaitTimeout, match=r"still queued after 1\.5 s: .*no answer from.*refused") as caught:
        solve.wait(1.5)
    assert time.monotonic() - begun >= 1.5  # not the client's patience: the wait's own
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(ConnectionFailed, match="refused"):
        solve.cancel()
    with pytest.raises(ConnectionFailed, match="refused"):
        list(solve.events())


@pytest.mark.parametrize("timeout", [-1.0, float("nan")])
def test_timeouts_that_are_none(settings: Settings, url: str, keys: dict[str, str], timeout: float) -> None:
    with Client(url, keys["ada"]) as client, pytest.raises(ValueError, match="timeout must be"):
        client.solve(**SMALL).wait(timeout)


class Gateway:
    """A server in front of the API's place, which answers as it is told: the first answers, then the last."""

    def __init__(self, *answers: tuple[int, dict[str, str], str] | str) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[float, str, str, str | None]] = []
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                gateway.asked.append(
                    (time.monotonic(), self.command, self.path, self.headers.get("Idempotency-Key"))
                )
                answer = gateway.answers.pop(0) if len(gateway.answers) > 1 else gateway.answers[0]
                if answer == "reset":
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    self.close_connection = True
                    self.connection.close()
                    return
                if answer == "cut":
                    self.send_response(200)
                    self.send_header("Content-Length", "1000")
                    self.end_headers()
                    self.wfile.write(b"{")
                    self.close_connection = True
                    return
                assert not isinstance(answer, str)
                status, headers, body = answer
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body.encode())

            do_GET = do_POST = do_DELETE = do  # noqa: N815

            def log_message(self, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05])

    def __enter__(self) -> Gateway:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def job(url: str, keys: dict[str, str]) -> str:
    """A queued job, as the API answers it."""
    with Client(url, keys["ada"]) as client:
        return client.solve(**SMALL).job().model_dump_json()


SOON = {"Retry-After": "0"}
TROUBLES: dict[str, tuple[int, dict[str, str], str] | str] = {
    "408": (408, SOON, ""),
    "429": (429, SOON, "{}"),
    "502": (502, {}, "<html>Bad Gateway</html>"),
    "503": (503, {"Retry-After": "0", "Connection": "close"}, ""),
    "504": (504, {"Retry-After": "nonsense"}, ""),
    "reset": "reset",
    "cut": "cut",
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_what_passes_is_waited_for(trouble: str, job: str) -> None:
    fine = (200, {}, job)
    with Gateway(*[TROUBLES[trouble]] * 3, fine) as gateway:
        solve = Client(gateway.url, "k").solve(**SMALL)
        keys = {asked[3] for asked in gateway.asked}
        assert (len(gateway.asked), len(keys)) == (4, 1)
        assert None not in keys
        gateway.answers = [*[TROUBLES[trouble]] * 3, (200, {}, job.replace('"queued"', '"succeeded"'))]
        assert solve.wait(30).status() is JobStatus.SUCCEEDED


def test_what_does_not_pass_is_told_at_once(job: str) -> None:
    for answer, expected in (
        ((404, {}, ""), NotFound),
        ((500, {}, ""), ApiError),
        ((301, {"Location": "https://there"}, ""), UnexpectedAnswer),
        ((200, {}, "<html>welcome to the hotel's network</html>"), UnexpectedAnswer),
        ((200, {}, '{"id": "s_1"}'), UnexpectedAnswer),
        ((200, {"Content-Encoding": "gzip"}, "no gzip"), UnexpectedAnswer),
    ):
        with Gateway((200, {}, job), answer) as gateway:
            solve = Client(gateway.url, "k").solve(**SMALL)
            for call in (solve.wait, solve.cancel, solve.job):
                gateway.asked.clear()
                with pytest.raises(expected):
                    call()
                assert len(gateway.asked) == 1


@pytest.mark.parametrize("kind", ["seconds", "date"])
def test_retry_after_is_kept_to(job: str, kind: str) -> None:
    with Gateway((200, {}, job)) as gateway:
        client = Client(gateway.url, "k")
        client.solve(**SMALL)
        when = "2" if kind == "seconds" else email.utils.formatdate(time.time() + 4, usegmt=True)
        gateway.answers.insert(0, (503, {"Retry-After": when}, ""))
        client.solve(**SMALL)
        first, second = (asked[0] for asked in gateway.asked[-2:])
        assert second - first > 1.9  # backing off by itself, it would ask again after 0.2 s


def test_a_frozen_server_does_not_hold_a_wait_longer_than_it_may_take(job: str) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))  # accepts, never answers
        gateway = stack.enter_context(Gateway((200, {}, job)))
        solve = Client(gateway.url, "k", timeout=60).solve(**SMALL)
        frozen = Client(f"http://127.0.0.1:{listener.getsockname()[1]}", "k", timeout=60)
        begun = time.monotonic()
        with pytest.raises(WaitTimeout, match="timed out"):
            Solve(solve.job(), frozen._transport).wait(1.0)
        assert time.monotonic() - begun < 30


@pytest.mark.slow
def test_waiting_through_a_restart_of_a_whole_server(
    tmp_path: Path, port: int, background: Background
) -> None:
    """Given back when the server stops, finished after it has started again, by one call of wait."""
    first = start(tmp_path / "d", "--port", str(port))
    calls = Calls()
    with Client(first.url, first.key) as client:
        solve = client.solve(slow_request(training={"steps": 3_000, "learning_rate": 0.001}))
        waiting.running(first.store, solve.id)
        calls.start("wait", lambda: solve.wait(progress=False).status())
        stop(first)
        second = start(tmp_path / "d", "--port", str(port))
        assert calls.join()["wait"] is JobStatus.SUCCEEDED
        assert len(solve.result().loss) == 3_000
    stop(second)


def test_a_new_client_waits_for_a_server_that_is_slow_with_its_first_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has taken the connection, so it is there: only one that takes none is given up soon."""
    monkeypatch.setattr(transport, "FIRST_PATIENCE", 0.1)
    asked = threading.Event()

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not asked.is_set():
                asked.set()
                time.sleep(2.0)  # the fault itself: longer than the shortest timeout
            body = Capabilities.of_contract("1").model_dump_json().encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            with Client(f"http://127.0.0.1:{server.server_port}", "k") as client:
                assert client.capabilities().version == "1"
            with Client(f"http://127.0.0.1:{server.server_port}", "k", patience=0.2) as hasty:
                asked.clear()
                with pytest.raises(ConnectionFailed, match="timed out"):
                    hasty.capabilities()
        finally:
            server.shutdown()
