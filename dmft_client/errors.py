"""All that this client raises.

ClientError
  ConnectionFailed       no answer from the server, or none can be found
  ApiError               the server refused; .status, .code, .problem say why
    InvalidRequest       400, 413, 422: something in the request; .errors name the fields
    AuthenticationError  401, 403: the key is missing, unknown or not enough
    NotFound             404, 410: no such solve, result or kernel (any more)
  SolveFailed            the solve ended in failure; .error has code, message, advice
  SolveCancelled         the solve was cancelled
  WaitTimeout            wait() ran out of time; the solve goes on

A wrong keyword of Client.solve is a TypeError; a wrong value is an InvalidRequest, found before
anything is sent.
"""

from __future__ import annotations

from dmft_schema import FieldError, Job, JobError, ProblemDetail


class ClientError(Exception):
    """Base of all errors of this client."""


class ConnectionFailed(ClientError):
    """No answer from the server, or no server to be found."""


class ApiError(ClientError):
    """The server answered with a problem."""

    def __init__(self, problem: ProblemDetail) -> None:
        super().__init__(f"{problem.detail} [{problem.status} {problem.code}]")
        self.problem = problem
        self.status = problem.status
        self.code = problem.code

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


class WaitTimeout(ClientError):
    """wait() ran out of time. The solve goes on; wait again, or cancel it."""

    def __init__(self, job: Job, timeout: float) -> None:
        self.job = job
        reason = f"step {job.progress.step} of {job.progress.steps}"
        if job.waiting_reason:
            reason = job.waiting_reason
        super().__init__(f"solve {job.id} is still {job.status} after {timeout:g} s: {reason}")
