"""What all tests share: a real Redis, settings for it, and requests to try things on."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from dmft_schema import SolveRequest
from jobs.artifacts import Artifacts
from jobs.connection import connect
from jobs.embedded_redis import EmbeddedRedis
from jobs.settings import Settings
from jobs.store import JobStore

# Tests share the cores with each other and with the processes they start: one thread each. It also makes
# sums come out the same on every machine. Set before anything loads numpy's or torch's libraries.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

pytest_plugins = ["tests.serving", "tests.accuracy"]


@pytest.fixture(autouse=True)
def no_local_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tests neither find nor leave traces of a server that the developer runs."""
    for name in ("DMFT_URL", "DMFT_API_KEY", "DMFT_REDIS_URL", "DMFT_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedRedis]:
    with (
        tempfile.TemporaryDirectory(prefix="dmft-test-") as folder,
        EmbeddedRedis(Path(folder) / "redis") as server,
    ):
        yield server


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def redis_client(redis_server: EmbeddedRedis) -> Iterator[redis.Redis]:
    """A client of an empty database."""
    client = connect(redis_server.url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def settings(redis_client: redis.Redis, redis_server: EmbeddedRedis, data_dir: Path) -> Settings:
    """Leases of two seconds, so that a test of a lost worker does not take long."""
    return Settings(
        redis_url=redis_server.url,
        data_dir=data_dir,
        lease_seconds=2.0,
        threads=1,  # Threads that share a busy core wait for each other at every operation.
        max_running_per_user=2,
        max_queued_per_user=50,
    )


@pytest.fixture
def store(redis_client: redis.Redis, settings: Settings) -> JobStore:
    return JobStore(redis_client, settings)


@pytest.fixture
def artifacts(settings: Settings) -> Artifacts:
    return Artifacts(settings.artifacts)


def small_request(**changes: object) -> SolveRequest:
    """A request that takes milliseconds to solve; `changes` replace its top-level fields."""
    return SolveRequest.model_validate(
        {
            "data": {"kernel": [[1.0, 0.2], [0.2, 1.0]], "targets": [1.0, -1.0]},
            "training": {"steps": 5},
            "method": {"name": "static_ntk"},
            **changes,
        }
    )


def slow_request(**changes: object) -> SolveRequest:
    """A request that takes a minute unless something ends it; it reports progress all along."""
    return small_request(
        **{
            "training": {"steps": 100_000, "learning_rate": 0.001},
            "method": {"name": "finite_width", "width": 64, "ensemble": 1},
            "outputs": {"kernels": []},
            "reuse": False,
            **changes,
        }
    )
