"""Connections that ask for nothing, or never finish asking, stop nobody."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import pytest

from api import middleware, server
from jobs.settings import Settings
from tests import waiting
from tests.serving import SMALL, running_api

MOST = 20


@pytest.fixture(scope="module")
def narrow(api_settings: Settings) -> Iterator[str]:
    with running_api(api_settings.model_copy(update={"max_connections": MOST})) as url:
        yield url


def connect(url: str, first: bytes = b"") -> socket.socket:
    address = httpx.URL(url)
    connection = socket.create_connection((address.host, address.port or 80), timeout=30)
    connection.sendall(first)
    return connection


def answer(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    received = b""
    with connection, suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            received += piece
    return received


@pytest.mark.parametrize("first", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_many_idle_connections(narrow: str, keys: dict[str, str], first: bytes) -> None:
    with ExitStack() as stack, httpx.Client(base_url=narrow) as kept:
        kept.headers["Authorization"] = f"Bearer {keys['ada']}"
        for index in range(5 * MOST):
            stack.enter_context(connect(narrow, first))
            if index % 10 == 0:
                assert kept.get("/v1/solves").status_code == 200
                assert httpx.get(f"{narrow}/healthz").status_code == 200


def test_when_all_are_at_work_the_next_is_told(narrow: str, keys: dict[str, str]) -> None:
    key = f"Bearer {keys['ada']}"
    headers = {"Authorization": key}
    job = httpx.post(f"{narrow}/v1/solves", json=SMALL, headers=headers).json()["id"]
    asked = f"GET /v1/solves/{job}/events HTTP/1.1\r\nHost: x\r\nAuthorization: {key}\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(MOST):
            stream = stack.enter_context(connect(narrow, asked.encode()))
            assert stream.recv(15) == b"HTTP/1.1 200 OK"
        refused = answer(stack.enter_context(connect(narrow)))
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"application/problem+json" in refused
        assert b"retry-after: " in refused.lower()
        assert b'"code":"too_many_connections"' in refused
    waiting.until(lambda: httpx.get(f"{narrow}/v1/solves", headers=headers).status_code == 200)


def test_what_is_no_http_is_a_problem(narrow: str) -> None:
    refused = answer(connect(narrow, b"NONSENSE\r\n\r\n"))
    assert refused.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in refused


def test_heads_and_bodies_that_do_not_come(
    api_settings: Settings, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(middleware, "BODY_SECONDS", 0.3)
    with running_api(api_settings) as url:
        assert answer(connect(url, b"GET / HTTP/1.1\r\n")) == b""
        assert answer(connect(url)) == b""
        head = (
            f"POST /v1/solves HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {keys['ada']}\r\n"
            "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
        )
        late = answer(connect(url, head.encode() + b'{"data'))
        assert late.startswith(b"HTTP/1.1 408 ")
        assert b'"code":"request_timeout"' in late
