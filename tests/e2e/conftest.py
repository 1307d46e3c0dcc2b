"""A server as its users run it: `dmft serve` as processes of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dmft_client import Client
from jobs.connection import connect
from jobs.embedded_redis import EmbeddedRedis
from jobs.settings import Settings
from jobs.store import JobStore
from tests import waiting

LEASE_SECONDS = 3.0


@dataclass
class Server:
    """A running `dmft serve`."""

    process: subprocess.Popen[str]
    data_dir: Path
    url: str
    key: str

    @property
    def store(self) -> JobStore:
        settings = Settings(data_dir=self.data_dir, lease_seconds=LEASE_SECONDS)
        return JobStore(connect(EmbeddedRedis(self.data_dir / "redis").url), settings)

    def descendants(self) -> dict[int, str]:
        """Process ids and command lines of everything that the server started."""
        return _descendants(self.process.pid)

    def worker_pid(self) -> int:
        return next(pid for pid, command in self.descendants().items() if "celery" in command)


def _descendants(pid: int) -> dict[int, str]:
    found: dict[int, str] = {}
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            for child in map(int, task.read_text().split()):
                found[child] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
                found |= _descendants(child)
    return found


def resident_bytes(pid: int) -> float:
    """Memory of a process and of all that it started."""
    pages = 0
    for one in (pid, *_descendants(pid)):
        try:
            pages += int(Path(f"/proc/{one}/statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


def start(data_dir: Path, *flags: str) -> Server:
    """Start a server and return once it is ready."""
    environment = os.environ | {"DMFT_LEASE_SECONDS": str(LEASE_SECONDS), "DMFT_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "serve", "--port", "0", "--data-dir", str(data_dir), *flags],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    line = process.stdout.readline()  # printed once it is ready
    assert line.startswith("Serving on http://"), line
    address = json.loads((data_dir / "server.json").read_text())
    return Server(process, data_dir, address["url"], (data_dir / "admin.key").read_text().strip())


def stop(server: Server) -> None:
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGTERM)
    server.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    running = start(tmp_path_factory.mktemp("server") / "data")
    yield running
    stop(running)
    patch.undo()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url, server.key) as client:
        yield client


def gone(pids: dict[int, str]) -> bool:
    """Whether none of the processes lives (a zombie does not)."""
    for pid in pids:
        status = Path(f"/proc/{pid}/status")
        try:
            if "State:\tZ" not in status.read_text():
                return False
        except FileNotFoundError:
            continue
    return True


def wait_until_gone(pids: dict[int, str]) -> None:
    waiting.until(lambda: gone(pids), seconds=30)
