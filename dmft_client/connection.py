"""Connections to one server: a pool of its own for each process, so that none reads another's answers."""

from __future__ import annotations

import ipaddress
import os
import pickle
from typing import Any
from urllib.parse import urlsplit

import httpx

from dmft_client import discovery
from dmft_client.errors import AuthenticationError, ConnectionFailed
from dmft_schema import ProblemDetail


class Connection:
    """The way to one server.

    A process that was forked off gets new connections at its first request; those it inherited are left
    alone, because what comes in over them answers its parent.

    A pickle holds the url, the timeout, and the API key only if it was given as an argument; a key from the
    environment or of the local server is looked up again where it is unpickled.

    Raises:
        ConnectionFailed: no server can be found, or the url is none.
        AuthenticationError: the key has characters that no key has.
    """

    def __init__(
        self, url: str | None, api_key: str | None, timeout: float, http: httpx.Client | None = None
    ) -> None:
        address = discovery.find(url, api_key)
        self.url = address.url
        self._base = _base(address.url)
        self._given_key = api_key
        self._headers = _headers(address.api_key)
        self._timeout = timeout
        self._given = http
        self._pools: dict[int, httpx.Client] = {}
        if http is not None:
            http.base_url = self._base
            http.headers.update(self._headers)
            self._pools[os.getpid()] = http

    @property
    def http(self) -> httpx.Client:
        """This process's own.

        Raises:
            ConnectionFailed: this is a fork, and the httpx.Client was given, so that no second can be made.
        """
        process = os.getpid()
        found = self._pools.get(process)
        if found is not None:
            return found
        if self._given is not None:
            raise ConnectionFailed(
                f"this Client was made with an httpx.Client, whose connections belong to process "
                f"{next(iter(self._pools))}; make a Client in process {process}"
            )
        # Of two threads that get here at once, both go on with the same one.
        return self._pools.setdefault(process, self._new())

    @property
    def timeout(self) -> float:
        """Seconds that one exchange may take; infinite without a limit."""
        read = self.http.timeout.read
        return float("inf") if read is None else read

    def _new(self) -> httpx.Client:
        # What the environment says of proxies is not about this machine.
        trust = not _is_loopback(self._base.host)
        return httpx.Client(
            base_url=self._base, headers=self._headers, timeout=self._timeout, trust_env=trust
        )

    def close(self) -> None:
        """Close this process's connections."""
        found = self._pools.get(os.getpid())
        if found is not None:
            found.close()

    def __del__(self) -> None:
        # Handles that were unpickled have nobody to close them.
        if getattr(self, "_pools", None) and self._given is None:
            self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._given is not None:
            raise pickle.PicklingError(
                "a Client that was made with an httpx.Client cannot be pickled; make one where it is needed"
            )
        return Connection, (self.url, self._given_key, self._timeout)


def _base(url: str) -> httpx.URL:
    try:
        urlsplit(url)  # refuses brackets that httpx lets through
        base = httpx.URL(url)
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise ConnectionFailed(f"{url!r} is not a url: {error}") from None
    if base.scheme not in ("http", "https") or not base.host:
        raise ConnectionFailed(f"{url!r} is not the url of a server; give one like http://127.0.0.1:8000")
    return base


def _headers(api_key: str | None) -> dict[str, str]:
    if api_key is None:
        return {}
    api_key = api_key.strip()  # keys that come from files end in a line break
    if not (api_key.isascii() and api_key.isprintable()):
        detail = "the API key has characters that no key has (it must be printable ASCII)"
        raise AuthenticationError(
            ProblemDetail(title="Unauthorized", status=401, code="malformed_key", detail=detail)
        )
    return {"Authorization": f"Bearer {api_key}"}


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
