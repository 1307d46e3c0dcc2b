"""A running API and supervisors with real solver processes, for the tests of all that stands on them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import redis

from api.main import create_app
from api.server import Server
from jobs.artifacts import Artifacts
from jobs.embedded_redis import EmbeddedRedis
from jobs.keys import KeyStore
from jobs.settings import Settings
from jobs.store import JobStore
from worker.solver import SolverPool, SolverProcess
from worker.supervisor import Supervisor

MAX_BODY_BYTES = 200_000
SMALL = {
    "data": {"kernel": [[1.0, 0.2], [0.2, 1.0]], "targets": [1.0, -1.0]},
    "training": {"steps": 5},
    "method": {"name": "static_ntk"},
}


class WatchedPool(SolverPool):
    """A pool that tells which solver it lent last."""

    last: SolverProcess | None = None

    def acquire(self) -> SolverProcess:
        self.last = super().acquire()
        return self.last


@pytest.fixture(scope="session")
def pool() -> Iterator[WatchedPool]:
    pool = WatchedPool()
    yield pool
    pool.close()


@pytest.fixture
def supervisor(store: JobStore, artifacts: Artifacts, pool: WatchedPool, settings: Settings) -> Supervisor:
    return Supervisor(store, artifacts, pool, settings, "test-worker")


class Background:
    """`supervisor.work()` in a thread; joined at the end of the test."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._supervisors: list[Supervisor] = []

    def work(self, supervisor: Supervisor) -> threading.Thread:
        thread = threading.Thread(target=supervisor.work)
        thread.start()
        self._threads.append(thread)
        self._supervisors.append(supervisor)
        return thread

    def end(self) -> None:
        for supervisor in self._supervisors:
            supervisor.draining.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture
def background() -> Iterator[Background]:
    background = Background()
    yield background
    background.end()


@pytest.fixture
def keys(redis_client: redis.Redis) -> dict[str, str]:
    """API keys of two users and an admin."""
    store = KeyStore(redis_client)
    return {"ada": store.create("ada"), "bob": store.create("bob"), "root": store.create("root", "admin")}


@contextmanager
def running_api(settings: Settings) -> Iterator[str]:
    """The URL of a running API, in a thread of the test process."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        server = Server(create_app(settings), settings, log_level="warning")
        thread = threading.Thread(target=server.run, args=[[listener]])
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def api_settings(redis_server: EmbeddedRedis, data_dir: Path) -> Settings:
    return Settings(
        redis_url=redis_server.url,
        data_dir=data_dir,
        lease_seconds=2.0,
        max_running_per_user=2,
        max_queued_per_user=50,
        max_body_bytes=MAX_BODY_BYTES,
        max_wait_seconds=5.0,
    )


@pytest.fixture(scope="session")
def url(api_settings: Settings) -> Iterator[str]:
    with running_api(api_settings) as url:
        yield url


@pytest.fixture
def connect_as(url: str) -> Iterator[Callable[[str | None], httpx.Client]]:
    """HTTP clients that carry a key."""
    with ExitStack() as stack:

        def connect(key: str | None) -> httpx.Client:
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            return stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=30))

        yield connect


@pytest.fixture
def anonymous(connect_as: Callable[[str | None], httpx.Client]) -> httpx.Client:
    return connect_as(None)


@pytest.fixture
def ada(connect_as: Callable[[str | None], httpx.Client], keys: dict[str, str]) -> httpx.Client:
    return connect_as(keys["ada"])


@pytest.fixture
def bob(connect_as: Callable[[str | None], httpx.Client], keys: dict[str, str]) -> httpx.Client:
    return connect_as(keys["bob"])


@pytest.fixture
def root(connect_as: Callable[[str | None], httpx.Client], keys: dict[str, str]) -> httpx.Client:
    return connect_as(keys["root"])
