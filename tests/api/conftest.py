"""The real application over a real Redis, with three users."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import redis
import uvicorn

from api.main import create_app
from jobs.artifacts import Artifacts
from jobs.embedded_redis import EmbeddedRedis
from jobs.keys import KeyStore
from jobs.settings import Settings
from jobs.store import JobStore
from tests.worker.conftest import WatchedPool
from tests.worker.conftest import pool as pool
from worker.supervisor import Supervisor

MAX_BODY_BYTES = 200_000
SMALL = {
    "data": {"kernel": [[1.0, 0.2], [0.2, 1.0]], "targets": [1.0, -1.0]},
    "training": {"steps": 5},
    "method": {"name": "static_ntk"},
}


@pytest.fixture
def keys(redis_client: redis.Redis) -> dict[str, str]:
    """API keys of two users and an admin."""
    store = KeyStore(redis_client)
    return {"ada": store.create("ada"), "bob": store.create("bob"), "root": store.create("root", "admin")}


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def settings(settings: Settings, data_dir: Path) -> Settings:
    """Those of the running API."""
    return settings.model_copy(update={"data_dir": data_dir})


@pytest.fixture(scope="session")
def url(redis_server: EmbeddedRedis, data_dir: Path) -> Iterator[str]:
    """A running API, in a thread of the test process."""
    settings = Settings(
        redis_url=redis_server.url,
        data_dir=data_dir,
        lease_seconds=2.0,
        max_running_per_user=2,
        max_queued_per_user=50,
        max_body_bytes=MAX_BODY_BYTES,
        max_wait_seconds=5.0,
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(create_app(settings), log_level="warning"))
        thread = threading.Thread(target=server.run, args=[[listener]])
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


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


@pytest.fixture
def worker(store: JobStore, artifacts: Artifacts, pool: WatchedPool, settings: Settings) -> Supervisor:
    """`worker.work()` solves all that is queued."""
    return Supervisor(store, artifacts, pool, settings, "test-worker")
