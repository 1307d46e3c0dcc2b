"""Errors as problem+json (RFC 9457): every 4xx and 5xx answer is made here."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

import redis
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from api.methods import allowed_methods
from dmft_schema import FieldError, ProblemDetail
from dmft_schema.refusal import MAX_ERRORS, field_errors, in_one_line, shortened
from jobs import errors as store
from jobs import storage

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """An answer that is an error."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        error_count: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = shortened(detail)
        self.errors = list(errors)
        self.error_count = error_count or len(self.errors)
        self.headers = dict(headers or {})

    def __reduce__(self) -> tuple[Any, ...]:
        # Problems found in another process (api/intake.py) are raised in this one.
        rest: dict[str, Any] = {
            "errors": self.errors,
            "error_count": self.error_count,
            "headers": self.headers,
        }
        return partial(Problem, **rest), (self.status, self.code, self.detail)

    def response(self, request_id: str) -> JSONResponse:
        """The HTTP answer."""
        body = ProblemDetail(
            title=HTTPStatus(self.status).phrase,
            status=self.status,
            code=self.code,
            detail=self.detail,
            request_id=request_id,
            errors=self.errors,
            error_count=self.error_count,
        )
        return JSONResponse(body.model_dump(mode="json"), self.status, self.headers, media_type=MEDIA_TYPE)


def invalid(errors: Sequence[FieldError], count: int | None = None) -> Problem:
    """A 422 that says in one line what is wrong where; `count` if there is more than `errors` names."""
    count = count or len(errors)
    named = errors[:MAX_ERRORS]
    return Problem(422, "invalid_request", in_one_line(named, count), errors=named, error_count=count)


def _validation(error: RequestValidationError) -> Problem:
    found = error.errors()
    return invalid(field_errors(found), len(found))


_CODES = {404: "not_found", 405: "method_not_allowed", 400: "bad_request", 413: "body_too_large"}


def of_status(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Problem:
    """A problem from what the framework (or the middleware) answers."""
    code = _CODES.get(status) or HTTPStatus(status).name.lower()
    return Problem(status, code, detail or HTTPStatus(status).description, headers=headers)


def of_http(error: HTTPException) -> Problem:
    """A problem from what the framework (or the middleware) raised."""
    return of_status(error.status_code, str(error.detail), error.headers)


def _refusal(error: store.StoreError) -> Problem:
    match error:
        case store.JobExpired():
            when = f"{error.at:%Y-%m-%d %H:%M} UTC"
            return Problem(410, "result_expired", f"solve {error} was removed on {when}; solve it again")
        case store.JobNotFound():
            return Problem(
                404, "job_not_found", f"there is no solve {shortened(str(error), 100)} among yours"
            )
        case store.JobNotFinished():
            return Problem(409, "job_not_finished", f"solve {error} is not finished: cancel it first")
        case store.IdempotencyConflict():
            return Problem(409, "idempotency_conflict", f"Idempotency-Key: {error}; use a new key")
        case store.TooManyQueued():
            detail = f"{error}: wait for some to finish, or cancel some"
            return Problem(429, "too_many_queued", detail, headers={"Retry-After": "10"})
        case store.ArtifactMissing():
            return Problem(410, "result_gone", f"{error} is no longer stored")
        case store.DatasetQuota():
            detail = f"{error}: remove some with DELETE /v1/datasets/{{id}}"
            return Problem(413, "dataset_quota", detail)
        case store.StorageFull():
            return storage_full(str(error))
    raise error


def storage_full(what: str) -> Problem:
    """A 507: nothing more is taken, all that is stored can be read."""
    detail = (
        f"the server's storage is full ({what}): results can be read, nothing more is taken. "
        "Try again later, delete solves that you no longer need, or tell the operator"
    )
    return Problem(507, "storage_full", detail, headers={"Retry-After": "30"})


def _of_system(error: OSError) -> Problem:
    if storage.is_full(error):
        return storage_full("a file could not be written")
    raise error


def _unavailable(error: redis.RedisError) -> Problem:
    # MISCONF: Redis could not write its own files. OOM: it has reached its maxmemory.
    if isinstance(error, redis.ResponseError) and re.search(r"\bMISCONF\b|^OOM\b|-OOM\b", str(error)):
        return storage_full("the job store cannot write")
    return Problem(
        503,
        "store_unavailable",
        "the job store does not answer; nothing was lost that had been accepted. Try again shortly",
        headers={"Retry-After": "2"},
    )


_EXPECTED: dict[type[Exception], Callable[[Any], Problem]] = {
    Problem: lambda problem: problem,
    RequestValidationError: _validation,
    HTTPException: of_http,
    store.StoreError: _refusal,
    redis.RedisError: _unavailable,
    OSError: _of_system,
}
"""What may be raised, and the problem that it is; anything else is a bug."""


def of_exception(error: Exception) -> Problem:
    """The problem that an exception is.

    Raises:
        Exception: the same, if it is none that is expected.
    """
    for kind, make in _EXPECTED.items():
        if isinstance(error, kind):
            return make(error)
    raise error


def install(app: FastAPI) -> None:
    """Make every error of the application a problem."""

    async def respond(request: Request, error: Exception) -> Response:
        problem = of_exception(error)
        if problem.status == HTTPStatus.METHOD_NOT_ALLOWED:
            allow = {"Allow": ", ".join(allowed_methods(app.router.routes, request.scope))}
            if request.method == "OPTIONS":
                return Response(status_code=204, headers=allow)
            asked = request.state.method
            detail = f"{asked} is not among what this path takes: {allow['Allow']}"
            problem = Problem(405, "method_not_allowed", detail, headers=allow)
        return problem.response(request.state.request_id)

    for kind in _EXPECTED:
        app.add_exception_handler(kind, respond)


def unexpected(request_id: str) -> Problem:
    """A bug: nothing of it is shown but the id under which it was logged."""
    detail = f"an unexpected error; report it with request id {request_id}"
    return Problem(500, "internal", detail)


def of_validation(error: ValidationError) -> Problem:
    """A problem from a model validated by hand."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return invalid(field_errors(found), len(found))
