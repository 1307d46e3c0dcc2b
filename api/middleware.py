"""What surrounds every request: its id, limits on its body, HEAD, a proxy's prefix, and the net under it."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.metrics import Metrics
from api.problems import MEDIA_TYPE, of_http, of_status, unexpected
from jobs import logs

logger = logging.getLogger(__name__)
_SANE_ID = re.compile(r"^[A-Za-z0-9._-]{1,64}$")
_KEPT_HEADERS = ("allow", "content-range", "retry-after", "www-authenticate")
_CLOSE = {"Connection": "close"}

_SECURITY = {
    # Answers hold what users sent: no browser may take one for a page, frame it, or tell others its address.
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}

BODY_SECONDS = 30.0
"""Longest silence of a client in the middle of a body."""


class RequestContext:
    """Gives each request an id, bounds its body, and makes a problem of every error, bugs included."""

    def __init__(self, app: ASGIApp, metrics: Metrics, max_body_bytes: int, root_path: str = "") -> None:
        self._app = app
        self._metrics = metrics
        self._max = max_body_bytes
        self._root = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(self._under_root(scope), receive, send, self._max)
        begun = time.monotonic()
        try:
            await self._answer(exchange, receive)
        finally:
            # A path that no route has could be anything; methods too.
            route = getattr(exchange.scope.get("route"), "path", "none")
            method = scope["method"] if route != "none" else "any"
            seconds = (exchange.began or time.monotonic()) - begun
            self._metrics.answered(method, route, exchange.status, seconds)

    async def _answer(self, exchange: _Exchange, receive: Receive) -> None:
        with logs.about(request_id=exchange.id):
            try:
                await self._app(exchange.scope, exchange.receive, exchange.send)
            except ClientDisconnect:
                return
            except Exception as error:
                if exchange.started:
                    raise
                if isinstance(error, HTTPException):
                    problem = of_http(error)
                else:
                    logger.exception("request %s failed", exchange.id)
                    problem = unexpected(exchange.id)
                await problem.response(exchange.id)(exchange.scope, receive, exchange.send)

    def _under_root(self, scope: Scope) -> Scope:
        """The scope as if the proxy in front had left its prefix on; some do, some take it off."""
        if not self._root:
            return scope
        changed = {**scope, "root_path": self._root}
        if not f"{scope['path']}/".startswith(f"{self._root}/"):
            changed["path"] = self._root + scope["path"]
            changed["raw_path"] = self._root.encode() + (scope.get("raw_path") or b"")
        return changed


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_body_bytes: int) -> None:
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        self.id = given if _SANE_ID.match(given) else secrets.token_hex(8)
        self.started = False
        self.began: float | None = None
        self.status = 499  # that the client went away before an answer began
        self._receive, self._send = receive, send
        self._max = max_body_bytes
        declared = headers.get("content-length", "0")
        self._declared = int(declared) if declared.isdigit() else 0
        self._received = 0
        self._whole = False
        self._replaced = False
        self._answered = asyncio.Event()
        self._head = scope["method"] == "HEAD"
        self.scope: dict[str, Any] = {**scope, "method": "GET" if self._head else scope["method"]}
        self.scope.setdefault("state", {}).update(request_id=self.id, method=scope["method"])

    async def receive(self) -> Message:
        """The next piece of the body, within its limits.

        Raises:
            HTTPException: it is too large, or does not come.
        """
        if self._head:
            # An answer to HEAD is over once it has begun: whatever streams its body stops.
            await self._answered.wait()
            return {"type": "http.disconnect"}
        if self._whole:
            return await self._receive()
        if self._declared > self._max:
            raise self._too_large()
        try:
            message = await asyncio.wait_for(self._receive(), BODY_SECONDS)
        except TimeoutError:
            detail = f"no more of the body came for {BODY_SECONDS:g} s"
            raise HTTPException(408, detail, headers=_CLOSE) from None
        self._received += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._received > self._max:
            raise self._too_large()
        return message

    def _too_large(self) -> HTTPException:
        detail = f"the request body is larger than {self._max} bytes, the limit of this server"
        return HTTPException(413, detail, headers=_CLOSE)

    async def send(self, message: Message) -> None:
        if message["type"] != "http.response.start":
            if not self._replaced and not self._head:
                await self._send(message)
            return
        headers = MutableHeaders(scope=message)
        headers["X-Request-ID"] = self.id
        self.started = True
        self.began = time.monotonic()
        status = self.status = message["status"]
        for name, value in _SECURITY.items():
            headers.setdefault(name, value)
        if status >= 400 and headers.get("content-type") != MEDIA_TYPE:
            self._replaced = True
            kept = {name: headers[name] for name in _KEPT_HEADERS if name in headers}
            problem = of_status(status, "", kept).response(self.id)
            headers = MutableHeaders(raw=problem.raw_headers)
            headers["X-Request-ID"] = self.id
            await self._send({**message, "headers": headers.raw})
            body = b"" if self._head else problem.body
            await self._send({"type": "http.response.body", "body": body})
            return
        await self._send(message)
        if self._head:
            await self._send({"type": "http.response.body", "body": b""})
            self._answered.set()
