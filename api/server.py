"""How the application is served: uvicorn, with connections bounded and waits that end when it closes."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import socket
from typing import Any, ClassVar

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.problems import MEDIA_TYPE, Problem
from api.services import Services
from jobs.settings import Settings

logger = logging.getLogger(__name__)

GRACE_SECONDS = 5
"""How long open answers may hold up a shutdown."""

HEAD_SECONDS = 15.0
"""Longest that a client may take to send a request line and headers."""

_OTHER_FILES = 256
_MOST_FILES = 65_536


class Connection(H11Protocol):
    """One connection. When there are too many, the one that has been idle the longest is closed."""

    most: ClassVar[int] = 1000

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._heard = self.loop.time()
        self._head_timer: asyncio.TimerHandle | None = None
        self._watch_head()
        if len(self.connections) > self.most:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._heard = self.loop.time()
        super().data_received(data)
        self._watch_head()

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _watch_head(self) -> None:
        waiting = self.idle and self.conn.their_state is h11.IDLE and not self.transport.is_closing()
        if not waiting:
            self._unwatch_head()
        elif self._head_timer is None and self.timeout_keep_alive_task is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _unwatch_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _make_room(self) -> None:
        others = [other for other in self.connections if isinstance(other, Connection) and other is not self]
        idle = [other for other in others if other.idle and not other.transport.is_closing()]
        if idle:
            min(idle, key=lambda other: other._heard).transport.close()
            return
        detail = f"all {self.most} connections of this server are in use: try again shortly"
        self._refuse(Problem(503, "too_many_connections", detail, headers={"Retry-After": "5"}))

    def send_400_response(self, msg: str) -> None:
        self._refuse(Problem(400, "bad_request", msg))

    def _refuse(self, problem: Problem) -> None:
        # Before there is a request that the application could answer.
        answer = problem.response("")
        body = bytes(answer.body)
        fields = {**problem.headers, "content-type": MEDIA_TYPE, "content-length": str(len(body))}
        lines = [f"HTTP/1.1 {problem.status} {json.loads(body)['title']}", "connection: close"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        self.transport.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        self.transport.close()


class Server(uvicorn.Server):
    """Serves one application; event streams and waiting requests are answered before it closes."""

    def __init__(self, app: FastAPI, settings: Settings, **options: Any) -> None:
        self._services: Services = app.state.services
        files = _raise_open_files()
        # Each stream has a connection to Redis beside its own.
        room = files - _OTHER_FILES - settings.max_streams
        most = max(16, min(settings.max_connections, room))
        if most < settings.max_connections:
            logger.warning("%d open files allow %d connections", files, most)
        kind = type("Connection", (Connection,), {"most": most})
        super().__init__(uvicorn.Config(app, http=kind, timeout_graceful_shutdown=GRACE_SECONDS, **options))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._services.streams.closing = True
        await super().shutdown(sockets)


def _raise_open_files() -> int:
    """Let this process open as many files as it may (within reason); returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return _MOST_FILES if soft == resource.RLIM_INFINITY else soft
