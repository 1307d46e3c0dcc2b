"""HTTP with retries, and problems turned into errors."""

from __future__ import annotations

import random
import time
from typing import Any

import httpx
from pydantic import ValidationError

from dmft_client.errors import ConnectionFailed, api_error
from dmft_schema import ProblemDetail

_RETRIED = {429, 502, 503, 504}
_ATTEMPTS = 5
_LONGEST_PAUSE = 10.0


class Transport:
    """Sends requests to one server. Requests must be safe to repeat (those to create solves carry an
    idempotency key)."""

    def __init__(self, http: httpx.Client, url: str) -> None:
        self._http = http
        self._url = url

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request, tried again when the server is away or overloaded.

        Raises:
            ConnectionFailed: no answer.
            ApiError: the server refused.
        """
        for attempt in range(_ATTEMPTS):
            last = attempt == _ATTEMPTS - 1
            try:
                response = self._http.request(method, path, **options)
            except httpx.TransportError as error:
                if last:
                    raise ConnectionFailed(
                        f"no answer from {self._url} ({error}); is `dmft serve` running?"
                    ) from error
                time.sleep(_pause(attempt, None))
                continue
            if response.status_code not in _RETRIED or last:
                return checked(response)
            time.sleep(_pause(attempt, response.headers.get("Retry-After")))
        raise AssertionError("unreachable")


def _pause(attempt: int, retry_after: str | None) -> float:
    if retry_after is not None and retry_after.isdigit():
        return min(float(retry_after), _LONGEST_PAUSE)
    return min(0.2 * 2**attempt, _LONGEST_PAUSE) * random.uniform(0.5, 1.0)


def checked(response: httpx.Response) -> httpx.Response:
    """The response, if it is none of the 4xx and 5xx.

    Raises:
        ApiError: it is.
    """
    if response.status_code < 400:
        return response
    response.read()
    try:
        problem = ProblemDetail.model_validate_json(response.content)
    except ValidationError:
        problem = ProblemDetail(
            title=response.reason_phrase,
            status=response.status_code,
            code="not_a_problem",
            detail=f"{response.url} answered {response.status_code}: {response.text[:200]!r}",
        )
    raise api_error(problem)
