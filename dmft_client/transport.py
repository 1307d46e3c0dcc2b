"""HTTP with retries, and answers turned into models or errors."""

from __future__ import annotations

import datetime
import email.utils
import logging
import math
import random
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from dmft_client.connection import Connection
from dmft_client.errors import ApiError, ConnectionFailed, UnexpectedAnswer, api_error
from dmft_schema import ProblemDetail
from dmft_schema.base import FROM_ANY_VERSION

logger = logging.getLogger(__name__)
Model = TypeVar("Model", bound=BaseModel)

FIRST_PATIENCE = 3.0
"""Seconds for which a server that has never answered is tried: it may not be there at all."""

_RETRIED = {408, 429, 502, 503, 504}
_LONGEST_PAUSE = 10.0
_SILENT_SECONDS = 5.0


class Transport:
    """Sends requests to one server, again and again while it is away or overloaded.

    Requests must be safe to repeat (those to create solves carry an idempotency key).

    Args:
        connection: to the server.
        patience: seconds for which a call is tried again while a server that has answered before is away.
    """

    def __init__(self, connection: Connection, patience: float) -> None:
        self.connection = connection
        self.patience = patience
        self._reached = False

    def give_up_time(self) -> float:
        """When (time.monotonic()) a call that starts now is given up."""
        return time.monotonic() + (self.patience if self._reached else min(FIRST_PATIENCE, self.patience))

    def send(self, method: str, path: str, *, give_up: float | None = None, **options: Any) -> httpx.Response:
        """One request, tried again when the server is away or overloaded.

        Args:
            give_up: when (time.monotonic()) to stop trying; by default, after `patience`.

        Raises:
            ConnectionFailed: no answer.
            ApiError: the server refused.
            UnexpectedAnswer: what answered is not this service.
        """
        retries = Retries(self, give_up)
        while True:
            try:
                options["timeout"] = retries.timeout(self.connection.timeout)
                return self._checked(self.connection.http.request(method, path, **options))
            except (httpx.RequestError, ApiError) as error:
                retries.after(error)

    @contextmanager
    def stream(self, path: str, **options: Any) -> Iterator[httpx.Response]:
        """A GET whose answer is read as it comes; never repeated here."""
        with self.connection.http.stream("GET", path, **options) as response:
            yield self._checked(response)

    def read(self, model: type[Model], method: str, path: str, **options: Any) -> Model:
        """`send`, and the answer as a model; what this client does not know of it is left out.

        Raises:
            UnexpectedAnswer: it cannot be read as one.
        """
        response = self.send(method, path, **options)
        try:
            return model.model_validate_json(response.content, context=FROM_ANY_VERSION)
        except ValidationError as error:
            what = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
            raise UnexpectedAnswer(
                f"{method} {response.url} was answered with what is no {model.__name__} ({what}); "
                "is it a server of this service, and of a version that this client knows?"
            ) from None

    def _checked(self, response: httpx.Response) -> httpx.Response:
        if response.status_code < 300:
            self._reached = True
            return response
        response.read()
        if response.status_code < 400:
            where = response.headers.get("Location", "elsewhere")
            raise UnexpectedAnswer(f"{response.url} sends to {where}; give that server's url to Client")
        try:
            problem = ProblemDetail.model_validate_json(response.content)
        except ValidationError:
            problem = ProblemDetail(
                title=response.reason_phrase,
                status=response.status_code,
                code="not_a_problem",
                detail=f"{response.url} answered {response.status_code}: {response.text[:200]!r}",
            )
        else:
            self._reached = True
        error = api_error(problem)
        error.retry_after = _seconds(response.headers.get("Retry-After"))
        raise error


class Retries:
    """The pauses between the attempts of one call."""

    def __init__(self, transport: Transport, give_up: float | None) -> None:
        self._url = transport.connection.url
        self._begun = time.monotonic()
        self._give_up = transport.give_up_time() if give_up is None else give_up
        # Somebody who takes a connection is there, and has this long.
        self._longest = self._begun + transport.patience if give_up is None else give_up
        self._attempts = 0
        self._told = False

    @property
    def left(self) -> float:
        """Seconds until the call is given up."""
        return self._give_up - time.monotonic()

    def timeout(self, longest: float) -> httpx.Timeout:
        """How long the next attempt may take: to find somebody, and for each part of the answer."""
        now = time.monotonic()
        find = min(longest, max(self._give_up - now, 1.0))
        answer = min(longest, max(self._give_up - now, self._longest - now, 1.0))
        return httpx.Timeout(
            None if math.isinf(answer) else answer, connect=None if math.isinf(find) else find
        )

    def after(self, error: Exception) -> None:
        """Pause after a failed attempt.

        Raises:
            ConnectionFailed, ApiError: the error, if it is no use to try again, or too late.
        """
        failure = self._failure(error)
        if not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            self._give_up = max(self._give_up, self._longest)
        if not failure.passing or self.left <= 0:
            raise failure from (error if failure is not error else None)
        if not self._told and time.monotonic() - self._begun > _SILENT_SECONDS:
            self._told = True
            logger.warning("%s; trying again", failure)
        asked = error.retry_after if isinstance(error, ApiError) else None
        backoff = 0.2 * 2 ** min(self._attempts, 6) * random.uniform(0.5, 1.0)
        self._attempts += 1
        time.sleep(max(0.0, min(backoff if asked is None else asked, _LONGEST_PAUSE, self.left)))

    def _failure(self, error: Exception) -> ApiError | ConnectionFailed | UnexpectedAnswer:
        if isinstance(error, ApiError):
            error.passing = error.status in _RETRIED
            return error
        if not isinstance(error, httpx.TransportError):  # too many redirects, a broken encoding
            return UnexpectedAnswer(f"the answer of {self._url} cannot be read: {error}")
        why = str(error) or type(error).__name__
        failure = ConnectionFailed(f"no answer from {self._url} ({why}); is `dmft serve` running?")
        failure.passing = not isinstance(
            error, httpx.UnsupportedProtocol | httpx.LocalProtocolError
        ) and not _is_refused_certificate(error)
        return failure


def _is_refused_certificate(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After in seconds: a number of them, or a date (RFC 9110, 10.2.3)."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        until = email.utils.parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    now = datetime.datetime.now(until.tzinfo or datetime.UTC)
    return max(0.0, (until.replace(tzinfo=now.tzinfo) - now).total_seconds())
