"""All that this client raises.

ClientError
  ConnectionFailed       no answer from the server, or none can be found (also a ConnectionError)
  UnexpectedAnswer       an answer or a file that cannot be read, or not to what was asked for
  ApiError               the server refused; .status, .code, .problem say why
    InvalidRequest       400, 413, 422: something in the request; .errors name the fields
    AuthenticationError  401, 403: the key is missing, unknown or not enough
    NotFound             404, 410: no such solve, result or kernel (any more)
  SolveFailed            the solve ended in failure; .error has code, message, advice
  SolveCancelled         the solve was cancelled
  WaitTimeout            wait() ran out of time; the solve goes on (also a TimeoutError)

A wrong keyword of Client.solve is a TypeError; a wrong value is an InvalidRequest, found before
anything is sent. All of them can be pickled, as pools of processes do with what their tasks raise.
"""

from __future__ import annotations

from typing import Any

from dmft_schema import FieldError, Job, JobError, ProblemDetail


class ClientError(Exception):
    """Base of all errors of this client."""

    passing = False
    """Whether the same call may succeed a little later; the client has tried again by itself."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By what it is, not by how it was made: constructors take other things than the message.
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[ClientError], args: tuple[Any, ...], state: dict[str, Any]) -> ClientError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ConnectionFailed(ClientError, ConnectionError):
    """No answer from the server, or no server to be found."""


class UnexpectedAnswer(ClientError):
    """An answer or a file that this client cannot read, or that is not of what was asked for."""


class ApiError(ClientError):
    """The server answered with a problem."""

    def __init__(self, problem: ProblemDetail) -> None:
        super().__init__(f"{problem.detail} [{problem.status} {problem.code}]")
        self.problem = problem
        self.status = problem.status
        self.code = problem.code
        self.retry_after: float | None = None  # seconds, when the server named them

    @property
    def errors(self) -> list[FieldError]:
        """The fields at fault, if any were named."""
        return self.problem.errors


class InvalidRequest(ApiError):
    """The request cannot be accepted as it is."""


class AuthenticationError(ApiError):
    """The API key is missing, unknown, or not enough."""


class NotFound(ApiError):
    """No such thing, or not any more."""


def api_error(problem: ProblemDetail) -> ApiError:
    """The error class for a problem."""
    match problem.status:
        case 400 | 413 | 422:
            return InvalidRequest(problem)
        case 401 | 403:
            return AuthenticationError(problem)
        case 404 | 410:
            return NotFound(problem)
    return ApiError(problem)


class SolveFailed(ClientError):
    """The solve ended in failure. `result(partial=True)` gives what it had reached."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.error = job.error or JobError(code="unknown", message="no reason was recorded")
        super().__init__(f"solve {job.id} failed: {self.error.message}. {self.error.advice}".strip())


class SolveCancelled(ClientError):
    """The solve was cancelled. `result(partial=True)` gives what it had reached."""

    def __init__(self, job: Job) -> None:
        self.job = job
        super().__init__(f"solve {job.id} was cancelled")


class WaitTimeout(ClientError, TimeoutError):
    """wait() ran out of time. The solve goes on; wait again, or cancel it."""

    def __init__(self, job: Job, timeout: float, away: ClientError | None = None) -> None:
        self.job = job
        reason = job.waiting_reason or f"step {job.progress.step} of {job.progress.steps}"
        if away is not None:
            reason = f"when last heard of ({reason}), and {away}"
        super().__init__(f"solve {job.id} is still {job.status} after {timeout:g} s: {reason}")
