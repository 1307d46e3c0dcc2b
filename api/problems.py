"""Errors as problem+json (RFC 9457): every 4xx and 5xx answer is made here."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import redis
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from dmft_schema import FieldError, ProblemDetail
from dmft_schema.refusal import field_errors, in_one_line
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
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})

    def response(self, request_id: str) -> JSONResponse:
        """The HTTP answer."""
        body = ProblemDetail(
            title=HTTPStatus(self.status).phrase,
            status=self.status,
            code=self.code,
            detail=self.detail,
            request_id=request_id,
            errors=self.errors,
        )
        return JSONResponse(body.model_dump(mode="json"), self.status, self.headers, media_type=MEDIA_TYPE)


def invalid(errors: Sequence[FieldError]) -> Problem:
    """A 422 that says in one line what is wrong where."""
    return Problem(422, "invalid_request", in_one_line(errors), errors=errors)


def _validation(error: RequestValidationError) -> Problem:
    found = error.errors()
    if any(entry["type"] == "json_invalid" for entry in found):
        reason = found[0].get("ctx", {}).get("error", "not JSON")
        return Problem(400, "invalid_json", f"the body is not valid JSON: {reason}")
    return invalid(field_errors(found))


def of_http(error: HTTPException) -> Problem:
    """A problem from what the framework (or the middleware) raised."""
    codes = {404: "not_found", 405: "method_not_allowed", 400: "bad_request", 413: "body_too_large"}
    code = codes.get(error.status_code, HTTPStatus(error.status_code).name.lower())
    return Problem(error.status_code, code, str(error.detail), headers=error.headers)


def _refusal(error: store.StoreError) -> Problem:
    match error:
        case store.JobExpired():
            when = f"{error.at:%Y-%m-%d %H:%M} UTC"
            return Problem(410, "result_expired", f"solve {error} was removed on {when}; solve it again")
        case store.JobNotFound():
            return Problem(404, "job_not_found", f"there is no solve {error} among yours")
        case store.JobNotFinished():
            return Problem(409, "job_not_finished", f"solve {error} is not finished: cancel it first")
        case store.IdempotencyConflict():
            return Problem(409, "idempotency_conflict", f"Idempotency-Key: {error}; use a new key")
        case store.TooManyQueued():
            detail = f"{error}: wait for some to finish, or cancel some"
            return Problem(429, "too_many_queued", detail, headers={"Retry-After": "10"})
        case store.ArtifactMissing():
            return Problem(410, "result_gone", f"{error} is no longer stored")
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


def install(app: FastAPI) -> None:
    """Make every error of the application a problem."""

    def handler(make: Any) -> Any:
        async def respond(request: Request, error: Exception) -> JSONResponse:
            return make(error).response(request.state.request_id)

        return respond

    app.add_exception_handler(Problem, handler(lambda problem: problem))
    app.add_exception_handler(RequestValidationError, handler(_validation))
    app.add_exception_handler(HTTPException, handler(of_http))
    app.add_exception_handler(store.StoreError, handler(_refusal))
    app.add_exception_handler(redis.RedisError, handler(_unavailable))
    app.add_exception_handler(OSError, handler(_of_system))


def unexpected(request_id: str) -> Problem:
    """A bug: nothing of it is shown but the id under which it was logged."""
    detail = f"an unexpected error; report it with request id {request_id}"
    return Problem(500, "internal", detail)


def of_validation(error: ValidationError) -> Problem:
    """A problem from a model validated by hand."""
    return invalid(field_errors(error.errors()))
