"""What surrounds every request: its id, the limit on its body, and the net under it."""

from __future__ import annotations

import logging
import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import of_http, unexpected
from jobs import logs

logger = logging.getLogger(__name__)
_SANE_ID = re.compile(r"^[A-Za-z0-9._-]{1,64}$")


class _BodyTooLarge(HTTPException):
    # Of a kind that FastAPI lets through while it reads a body; anything else would become a 400.
    def __init__(self, limit: int) -> None:
        detail = f"the request body is larger than {limit} bytes, the limit of this server"
        super().__init__(413, detail, headers={"Connection": "close"})


class RequestContext:
    """Gives each request an id, refuses bodies over the limit, and answers bugs with a plain 500."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._max = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _SANE_ID.match(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        started = False
        received = 0

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max:
                raise _BodyTooLarge(self._max)
            return message

        declared = headers.get("content-length", "0")
        try:
            if declared.isdigit() and int(declared) > self._max:
                raise _BodyTooLarge(self._max)
            with logs.about(request_id=request_id):
                await self._app(scope, receive_bounded, send_with_id)
        except Exception as error:
            if started:
                raise
            if isinstance(error, _BodyTooLarge):
                problem = of_http(error)
            else:
                with logs.about(request_id=request_id):
                    logger.exception("request %s failed", request_id)
                problem = unexpected(request_id)
            await problem.response(request_id)(scope, receive, send_with_id)
