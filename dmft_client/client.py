"""The client: where every conversation with a server starts."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from numpy.typing import ArrayLike

from dmft_client import arguments
from dmft_client.connection import Connection
from dmft_client.solve import Solve
from dmft_client.transport import Transport
from dmft_schema import Capabilities, Job, JobPage, SolveRequest
from dmft_schema.base import OpenModel


class _Dataset(OpenModel):
    id: str


class Client:
    """Talks to one server.

    Args:
        url: the server; else DMFT_URL, else the local server started by `dmft serve`.
        api_key: else DMFT_API_KEY, else the local server's own key.
        http: an httpx.Client to use instead of a new one (its base_url and headers are set).
        timeout: seconds that one HTTP exchange may take.
        patience: seconds for which a call is tried again while a server that has answered before is away
            or overloaded. `Solve.wait` tries for as long as it waits.

    A Client may be shared by threads, across fork, and pickled; each process has its own connections.
    A pickle holds the API key only if it was given as an argument.

    Raises:
        ConnectionFailed: no server can be found.
        AuthenticationError: the key has characters that no key has.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        http: httpx.Client | None = None,
        timeout: float = 60.0,
        patience: float = 30.0,
    ) -> None:
        self._transport = Transport(Connection(url, api_key, timeout, http), patience)

    @property
    def url(self) -> str:
        """The server's address."""
        return self._transport.connection.url

    def solve(
        self,
        request: SolveRequest | None = None,
        *,
        idempotency_key: str | None = None,
        **keywords: Any,
    ) -> Solve:
        """Submit a solve and return at once with a handle on it.

        Keywords are the request's fields, wherever they stand in it: `inputs`, `targets`, `kernel`,
        `dataset`, `classes`, `points`, `architecture`, `depth`, `activation`, `gamma0`, `learning_rate`,
        `steps`, `method`, `samples`, `replicas`, `seed`, `tolerance`, `width`, `ensemble`, `kernels`, `name`,
        `tags` and so on (dmft_schema.request documents them all). `network` takes what `dmft_client.nn`
        makes. Arrays may be lists, or of numpy, pandas, torch or any library that converts to numpy
        (dmft_schema.arrays).

        Args:
            request: instead of keywords, a whole request.
            idempotency_key: two calls with the same key and request make one solve.

        Raises:
            TypeError: an unknown keyword.
            InvalidRequest: a value is refused, here or by the server.
        """
        if request is None:
            request = arguments.build(keywords)
        elif keywords:
            raise TypeError("solve() takes a request or keywords, not both")
        job = self._transport.read(
            Job,
            "POST",
            "/v1/solves",
            content=request.model_dump_json(),
            headers={
                "Content-Type": "application/json",
                # The same key goes out with every retry, so a lost answer makes no second solve.
                "Idempotency-Key": idempotency_key or secrets.token_hex(16),
            },
        )
        return Solve(job, self._transport)

    def get(self, solve_id: str) -> Solve:
        """A handle on a solve submitted earlier, also by another process.

        Raises:
            NotFound: none of yours has this id.
        """
        return Solve.attach(solve_id, self._transport)

    def list(
        self, *, status: str | None = None, tag: str | None = None, owner: str | None = None
    ) -> Iterator[Solve]:
        """Your solves, newest first, fetched page by page."""
        query = {"status": status, "tag": tag, "owner": owner}
        query = {key: value for key, value in query.items() if value is not None}
        while True:
            page = self._transport.read(JobPage, "GET", "/v1/solves", params=query)
            for job in page.items:
                yield Solve(job, self._transport)
            if page.next_cursor is None:
                return
            query["cursor"] = page.next_cursor

    def upload(self, source: str | Path | None = None, **arrays: ArrayLike) -> str:
        """Upload a dataset; returns the id to give as `dataset_id`.

        Args:
            source: path of an NPZ, or
            arrays: x, y[, x_test, y_test], or kernel, y[, cross_kernel, test_kernel, y_test].

        Raises:
            InvalidRequest: an array is refused, here or by the server.
            OSError: the file cannot be read.
        """
        if source is not None and arrays:
            raise TypeError("upload() takes a path or arrays, not both")
        content = arguments.upload(arrays) if source is None else Path(source).read_bytes()
        headers = {"Content-Type": "application/octet-stream"}
        return self._transport.read(_Dataset, "POST", "/v1/datasets", content=content, headers=headers).id

    def capabilities(self) -> Capabilities:
        """What this server can be asked for."""
        return self._transport.read(Capabilities, "GET", "/v1/capabilities")

    def close(self) -> None:
        """Close the connections."""
        self._transport.connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
