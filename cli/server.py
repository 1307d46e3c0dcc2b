"""A whole server on this machine: Redis, one worker, the API, each a process of its own."""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import sys
import threading
import time
from pathlib import Path

import httpx
import redis

from cli import options, private, worker
from cli.child import Backoff, Child
from cli.errors import CommandError
from dmft_client import discovery
from jobs import logs, storage
from jobs.artifacts import Artifacts
from jobs.connection import connect
from jobs.embedded_redis import EmbeddedRedis, EmbeddedRedisError
from jobs.keys import KeyStore
from jobs.settings import Settings

logger = logging.getLogger(__name__)

READY_SECONDS = 60.0
WATCH_SECONDS = 0.2
HOUSEKEEPING_SECONDS = 10.0


def redis_folder(data_dir: Path) -> Path:
    """Where the embedded Redis of a data folder keeps its files."""
    return data_dir / private.REDIS


def embedded_url(data_dir: Path) -> str:
    """The URL of the embedded Redis of a data folder, running or not."""
    return EmbeddedRedis(redis_folder(data_dir)).url


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
        self._redis_backoff = Backoff(longest=1.0)
        self._children: list[Child] = []
        self._address_files: list[Path] = []
        self._housekeeping = 0.0
        self.url = ""
        self.key_file = self._settings.data_dir / private.KEY_FILE

    def start(self) -> None:
        """Start, and return once jobs can be solved.

        Raises:
            CommandError: with what stands in the way.
        """
        try:
            private.make_own(self._settings)
            Artifacts.of(self._settings).sweep()
            self._bind()
            self._start_redis()
            self._adopt_key()
            self._start_children()
            self._wait_until_ready()
            self._leave_address()
        except BaseException as error:
            self.stop()
            if isinstance(error, OSError) and storage.is_full(error):
                message = f"the disk of {self._settings.data_dir} is full: make room, and start again"
                raise CommandError(message) from None
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
        folder = redis_folder(self._settings.data_dir)
        self._redis = EmbeddedRedis(folder, self._settings.min_free_bytes)
        self._redis_backoff.begun()
        try:
            self._redis.start()
        except EmbeddedRedisError as error:
            self._redis = None
            raise CommandError(str(error)) from None
        self._settings = self._settings.model_copy(update={"redis_url": self._redis.url})

    def _adopt_key(self) -> None:
        if not self.key_file.exists():
            private.write(self.key_file, f"dmft_{secrets.token_urlsafe(32)}\n")
        key = self.key_file.read_text().strip()
        try:
            keys = KeyStore(connect(self._settings.redis_url))
            if keys.authenticate(key) is None:  # a known one needs no write, for which there may be no room
                keys.adopt_admin(key)
        except redis.RedisError as error:
            where = logs.without_secrets(self._settings.redis_url)
            raise CommandError(f"Redis at {where} does not answer: {error}") from None

    def _start_children(self) -> None:
        assert self._listener is not None
        fd = self._listener.fileno()
        api = [sys.executable, "-m", "cli.main", "api", "--fd", str(fd)]
        self._children = [
            self._child("worker", worker.command(self._settings)),
            self._child("api", api, fd),
        ]
        for child in self._children:
            child.start()

    def _child(self, name: str, command: list[str], *descriptors: int) -> Child:
        settings = self._settings.model_copy(update={"log_file": self._log_file(name)})
        # Redis outlives the launcher for as long as these need it, to give jobs back.
        lifeline = () if self._redis is None else (self._redis.lifeline,)
        output = self._log_file(name).with_suffix(".out")
        return Child(name, command, options.environment(settings), output, (*descriptors, *lifeline))

    def _log_file(self, name: str) -> Path:
        return self._settings.data_dir / private.LOGS / f"{name}.log"

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        answer = "no answer yet"
        while time.monotonic() < deadline:
            for child in self._children:
                if not child.alive:
                    raise CommandError(child.obituary(self._log_file(child.name)))
            self._tend_redis()
            try:
                response = httpx.get(f"{self.url}/readyz", timeout=2.0)
                if response.status_code == httpx.codes.OK:
                    return
                lacking = storage.shortage_of(self._settings)
                if lacking is not None:
                    logger.warning(
                        "%s: what is stored can be read, nothing is solved until there is room", lacking
                    )
                    return
                answer = response.text
            except httpx.TransportError as error:
                answer = str(error)
            time.sleep(0.05)
        logs = ", ".join(str(self._log_file(child.name)) for child in self._children)
        raise CommandError(f"the server is not ready after {READY_SECONDS:g} s ({answer}); see {logs}")

    def _leave_address(self) -> None:
        discovery.forget_ended()
        address = json.dumps({"url": self.url, "key_file": str(self.key_file), "pid": os.getpid()})
        data_dir = self._settings.data_dir
        for path in (data_dir / discovery.SERVER_FILE, discovery.register_file(data_dir)):
            try:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                private.write(path, address)
            except OSError as error:
                logger.warning("clients will not find this server by %s: %s", path, error)
            else:
                self._address_files.append(path)

    def watch(self, stop: threading.Event) -> None:
        """Keep everything running until `stop` is set: whatever ends is started again, however often."""
        while not stop.wait(WATCH_SECONDS):
            self._tend_redis()
            for child in self._children:
                child.tend()
            if time.monotonic() - self._housekeeping > HOUSEKEEPING_SECONDS:
                self._housekeeping = time.monotonic()
                self._bound_outputs()

    def _tend_redis(self) -> None:
        if self._redis is None:
            return
        try:
            if self._redis.alive:
                self._redis.tend()
            elif self._redis_backoff.due():
                lacking = storage.shortage_of(self._settings)
                why = f" (storage is full: {lacking})" if lacking else ""
                logger.warning("Redis ended%s; starting it again on the same data", why)
                self._redis_backoff.begun()
                self._redis.restart()
                self._redis_backoff.begun()
        except (EmbeddedRedisError, redis.RedisError, OSError) as error:
            logger.warning("Redis: %s; trying again", error)

    def _bound_outputs(self) -> None:
        # What is printed past the logs, and Redis's own log, is not rotated by those who write it.
        files = [child.output for child in self._children]
        if self._redis is not None:
            files.append(self._redis.log)
        for file in files:
            try:
                logs.bound(file, self._settings.log_bytes)
            except OSError as error:
                logger.warning("%s cannot be shortened: %s", file, error)

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
