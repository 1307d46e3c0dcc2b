"""A whole server on this machine: Redis, one worker, the API, each a process of its own."""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import redis

from cli import options, worker
from cli.errors import CommandError
from dmft_client.discovery import SERVER_FILE, pointer_file
from jobs.connection import connect
from jobs.embedded_redis import EmbeddedRedis, EmbeddedRedisError, die_with_parent
from jobs.keys import KeyStore
from jobs.settings import Settings

logger = logging.getLogger(__name__)

READY_SECONDS = 60.0
STOP_SECONDS = 15.0
WATCH_SECONDS = 0.5
SHORT_LIFE_SECONDS = 10.0
MAX_SHORT_LIVES = 3
"""A process that ends this often in a row, each time this soon, is not started again."""


def redis_folder(data_dir: Path) -> Path:
    """Where the embedded Redis of a data folder keeps its files."""
    return data_dir / "redis"


def embedded_url(data_dir: Path) -> str:
    """The URL of the embedded Redis of a data folder, running or not."""
    return EmbeddedRedis(redis_folder(data_dir)).url


@dataclass
class Child:
    """A process of the server, started again when it ends by itself."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    inherited: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    short_lives: int = 0

    def start(self) -> None:
        with open(self.log, "ab") as log:
            # A pre-exec hook is safe here: it makes one system call and takes no lock.
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | self.environment,
                pass_fds=self.inherited,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self.started = time.monotonic()

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def revive(self) -> None:
        """Start it again.

        Raises:
            CommandError: it keeps ending right after its start.
        """
        assert self.process is not None
        short = time.monotonic() - self.started < SHORT_LIFE_SECONDS
        self.short_lives = self.short_lives + 1 if short else 0
        if self.short_lives >= MAX_SHORT_LIVES:
            raise CommandError(self.obituary())
        logger.warning("%s ended with status %s; starting it again", self.name, self.process.returncode)
        self.start()

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def obituary(self) -> str:
        """What happened, with the end of its log."""
        assert self.process is not None
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
        return f"{self.name} ended with status {self.process.returncode}; the end of {self.log}:\n{tail}"


class LocalServer:
    """Starts and stops everything; use as a context manager.

    Attributes:
        url: of the API.
        key_file: holds the admin's API key.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.model_copy(update={"data_dir": settings.data_dir.resolve()})
        self._redis: EmbeddedRedis | None = None
        self._listener: socket.socket | None = None
        self._children: list[Child] = []
        self._address_files: list[Path] = []
        self.url = ""
        self.key_file = self._settings.data_dir / "admin.key"

    def start(self) -> None:
        """Start, and return once jobs can be solved.

        Raises:
            CommandError: with what stands in the way.
        """
        try:
            self._settings.data_dir.mkdir(parents=True, exist_ok=True)
            self._bind()
            self._start_redis()
            self._adopt_key()
            self._start_children()
            self._wait_until_ready()
            self._leave_address()
        except BaseException:
            self.stop()
            raise

    def _bind(self) -> None:
        # Bound here and handed down: a port in use is noticed at once, and connections that come
        # while the API is started again wait instead of failing.
        host, port = self._settings.host, self._settings.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind((host, port))
        except OSError as error:
            raise CommandError(
                f"cannot listen on {host} port {port}: {error.strerror}. Choose another --port or --host, "
                "or stop the program that uses it"
            ) from None
        self._listener.listen(128)
        reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        self.url = f"http://{reachable}:{self._listener.getsockname()[1]}"

    def _start_redis(self) -> None:
        if self._settings.redis_url:
            return
        self._redis = EmbeddedRedis(redis_folder(self._settings.data_dir))
        try:
            self._redis.start()
        except EmbeddedRedisError as error:
            self._redis = None
            raise CommandError(str(error)) from None
        self._settings = self._settings.model_copy(update={"redis_url": self._redis.url})

    def _adopt_key(self) -> None:
        if not self.key_file.exists():
            descriptor = os.open(self.key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as stream:
                stream.write(f"dmft_{secrets.token_urlsafe(32)}\n")
        try:
            keys = KeyStore(connect(self._settings.redis_url))
            keys.adopt(self.key_file.read_text().strip(), "admin", "admin")
        except redis.RedisError as error:
            raise CommandError(f"Redis at {self._settings.redis_url} does not answer: {error}") from None

    def _start_children(self) -> None:
        assert self._listener is not None
        environment = options.environment(self._settings)
        logs = self._settings.data_dir / "logs"
        logs.mkdir(exist_ok=True)
        fd = self._listener.fileno()
        api = [sys.executable, "-m", "cli.main", "api", "--fd", str(fd)]
        self._children = [
            Child("worker", worker.command(self._settings), environment, logs / "worker.log"),
            Child("api", api, environment, logs / "api.log", inherited=(fd,)),
        ]
        for child in self._children:
            child.start()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        answer = "no answer yet"
        while time.monotonic() < deadline:
            for child in self._children:
                if not child.alive:
                    raise CommandError(child.obituary())
            try:
                response = httpx.get(f"{self.url}/readyz", timeout=2.0)
                if response.status_code == httpx.codes.OK:
                    return
                answer = response.text
            except httpx.TransportError as error:
                answer = str(error)
            time.sleep(0.05)
        logs = ", ".join(str(child.log) for child in self._children)
        raise CommandError(f"the server is not ready after {READY_SECONDS:g} s ({answer}); see {logs}")

    def _leave_address(self) -> None:
        address = json.dumps({"url": self.url, "key_file": str(self.key_file), "pid": os.getpid()})
        for path in (self._settings.data_dir / SERVER_FILE, pointer_file()):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(address)
            self._address_files.append(path)

    def watch(self, stop: threading.Event) -> None:
        """Keep everything running until `stop` is set.

        Raises:
            CommandError: a part keeps ending right after its start.
        """
        while not stop.wait(WATCH_SECONDS):
            if self._redis is not None and not self._redis.alive:
                logger.warning("Redis ended; starting it again on the same data")
                self._redis.stop()
                self._redis.start()
            for child in self._children:
                if not child.alive:
                    child.revive()

    def stop(self) -> None:
        """Stop everything: the API first, so that nothing new comes in; Redis last."""
        for path in self._address_files:
            # Another server may have left its own address there meanwhile.
            if path.is_file() and json.loads(path.read_text()).get("pid") == os.getpid():
                path.unlink()
        for child in reversed(self._children):
            child.stop()
        if self._redis is not None:
            self._redis.stop()
        if self._listener is not None:
            self._listener.close()

    def __enter__(self) -> LocalServer:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
