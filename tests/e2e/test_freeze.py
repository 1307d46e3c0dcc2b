"""Redis frozen under load; the record with more of everything is tests/records/freeze.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Server, start, stop
from tests.records.freeze import LIMITS, freeze

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        for name, value in LIMITS.items():
            patch.setenv(name, value)
        running = start(tmp_path_factory.mktemp("freeze") / "data")
        yield running
        stop(running)


@pytest.mark.parametrize("seed", range(5))
def test_every_job_once(server: Server, seed: int) -> None:
    done = freeze(server, jobs=60, seconds=4.0, seed=seed)
    assert done.jobs == 60
    assert done.frozen_at < 60
