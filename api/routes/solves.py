"""POST /v1/solves and what can be asked of a solve."""

from __future__ import annotations

import re
import tempfile
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

import redis
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic_core import to_json
from sse_starlette import EventSourceResponse
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from api import admission, openapi, streams
from api.auth import CurrentUser, key_of, user
from api.examples import SOLVE_EXAMPLES
from api.problems import Problem, invalid
from api.routing import Route
from api.services import Services, ServicesDep
from dmft_schema import FieldError, Job, JobPage, JobStatus, SolveRequest
from jobs.errors import StoreError

router = APIRouter(prefix="/v1/solves", tags=["solves"], dependencies=[Depends(user)], route_class=Route)

_EVENT_ID = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?")
_PREFER_WAIT = re.compile(
    r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,18}(?:\.\d{1,9})?)(?![\d.])", re.IGNORECASE | re.ASCII
)
_LARGE_REQUEST = 2**20
_PING_SECONDS = 5
_SEND_SECONDS = 60.0
"""A reader that takes nothing for this long has gone."""


@router.post(
    "",
    status_code=202,
    response_model=Job,
    openapi_extra=openapi.json_body(SolveRequest, SOLVE_EXAMPLES),
    responses={200: {"model": Job, "description": "The solve that this idempotency key made before."}},
)
async def create(
    request: Request,
    response: Response,
    services: ServicesDep,
    caller: CurrentUser,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
    prefer: Annotated[str | None, Header()] = None,
) -> Job:
    """Queue a solve. `Prefer: wait=N` answers when it is finished, or after N seconds."""
    submission = await services.intake.take(request, caller.id, admission.submit, caller, idempotency_key)
    job = submission.job
    response.headers["Location"] = f"{request.scope['root_path']}/v1/solves/{job.id}"
    if not submission.created:
        response.status_code = 200
    return under(request, await _waited_for(job, services, prefer, response))


async def _waited_for(
    job: Job, services: Services, prefer: str | None, response: Response, after: str = "0"
) -> Job:
    """The job when it is finished, or after the seconds that `Prefer: wait=N` names; else as it is.

    `after` is the id of the last event that came before the job was looked at.
    """
    wanted = _PREFER_WAIT.search(prefer or "")
    if not wanted:
        return job
    seconds = min(float(wanted[1]), services.settings.max_wait_seconds)
    if not job.status.final:
        if not await streams.finished(services.streams, job.id, seconds, after):
            return job
        job = await run_in_threadpool(_as_it_is, services, job)
    response.headers["Preference-Applied"] = f"wait={seconds:g}"
    return job


def _as_it_is(services: Services, job: Job) -> Job:
    """The job now; as it was if the store does not say, for it has been accepted all the same."""
    try:
        return services.store.get(job.id)
    except (redis.RedisError, StoreError):
        return job


def under(request: Request, job: Job) -> Job:
    """The job with links that hold behind the proxy in front."""
    root = request.scope["root_path"]
    if not root:
        return job
    return job.model_copy(update={"links": {name: root + link for name, link in job.links.items()}})


@router.get("", response_model=JobPage)
def list_solves(
    request: Request,
    services: ServicesDep,
    caller: CurrentUser,
    status: JobStatus | None = None,
    tag: str | None = None,
    owner: Annotated[
        str | None, Query(description="Admins: one user's solves, by name or id, or `*`.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(pattern=r"^[0-9]{1,18}$")] = None,
) -> Response:
    """Your solves, newest first."""
    whose: str | None = caller.id
    if owner not in (None, caller.id):
        # `*` first: it is no name, whatever a key of an earlier version may be called.
        found = None if owner == "*" else services.keys.id_of(owner)
        if found != caller.id and not caller.is_admin:
            raise Problem(403, "admins_only", "only admins may list other users' solves")
        whose = None if owner == "*" else found or owner
    page = services.store.page(owner=whose, status=status, tag=tag, limit=limit, cursor=cursor)
    if request.scope["root_path"]:
        page = page.model_copy(update={"items": [under(request, job) for job in page.items]})
    # Not by FastAPI, which would check every job again: half of what a long list takes.
    return Response(page.model_dump_json(), media_type="application/json")


@router.get("/{job_id}", response_model=Job)
async def get(
    job_id: str,
    request: Request,
    response: Response,
    services: ServicesDep,
    caller: CurrentUser,
    prefer: Annotated[str | None, Header()] = None,
) -> Job:
    """One solve: its status, progress, and why it still waits.

    `Prefer: wait=N` answers when it is finished, or after N seconds.
    """
    after = await services.streams.latest(job_id) if prefer else "0"
    job = await run_in_threadpool(services.job_of, job_id, caller)
    return under(request, await _waited_for(job, services, prefer, response, after))


@router.get("/{job_id}/request", response_model=SolveRequest)
def whole_request(job_id: str, services: ServicesDep, caller: CurrentUser) -> Response:
    """The whole request, arrays too; sent to `POST /v1/solves` it asks for the same again."""
    services.job_of(job_id, caller)
    stored = services.store.request(job_id)
    if stored is None:
        raise Problem(410, "request_gone", f"the request of solve {job_id} is no longer stored")
    if len(stored) < _LARGE_REQUEST:
        return Response(stored, media_type="application/json")
    # Readers may be slow, and many: what they have not read yet waits on disk.
    file = tempfile.TemporaryFile(dir=services.settings.data_dir)  # noqa: SIM115 - closed when it is sent
    file.write(stored.encode())
    file.seek(0)
    pieces = iter(partial(file.read, 2**16), b"")
    return StreamingResponse(pieces, media_type="application/json", background=BackgroundTask(file.close))


@router.post("/{job_id}/cancel", status_code=202, response_model=Job)
def cancel(job_id: str, request: Request, services: ServicesDep, caller: CurrentUser) -> Job:
    """Ask a solve to stop. A running one keeps the trajectory it had reached."""
    services.job_of(job_id, caller)
    return under(request, services.store.cancel(job_id))


@router.delete("/{job_id}", status_code=204)
def delete(job_id: str, services: ServicesDep, caller: CurrentUser) -> None:
    """Forget a finished solve and its files. Repeated, it answers the same for some time."""
    if services.store.deleted_by(job_id) != caller.id:
        services.job_of(job_id, caller)
    unused = services.store.delete(job_id)
    if unused:
        services.artifacts.remove_result(unused)
        services.store.removed(unused)


class _Events(EventSourceResponse):
    """An event stream that gives its place back."""

    def __init__(self, events: AsyncIterator[Any], places: streams.Streams) -> None:
        super().__init__(events, ping=_PING_SECONDS, send_timeout=_SEND_SECONDS, sep="\n")
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._places.give_back()


@router.get(
    "/{job_id}/events",
    response_class=EventSourceResponse,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def events(
    job_id: str,
    request: Request,
    services: ServicesDep,
    caller: CurrentUser,
    last_event_id: Annotated[str | None, Header()] = None,
) -> EventSourceResponse:
    """Server-sent events, `progress` and `status`, up to the final status. `Last-Event-ID` resumes."""
    await run_in_threadpool(services.job_of, job_id, caller)
    after = last_event_id or "0"
    numbers = _EVENT_ID.fullmatch(after)
    if not numbers or any(int(number or 0) >= 2**64 for number in numbers.groups()):
        message = "must be the id of an event of this stream"
        raise invalid([FieldError(loc=["header", "Last-Event-ID"], msg=message)])
    key = key_of(request) or ""

    async def welcome() -> bool:
        return await services.identify(key) == caller

    async def lines() -> AsyncIterator[dict[str, str]]:
        async for event in services.streams.follow(job_id, after, welcome=welcome):
            data = to_json(event.data).decode()
            yield {"id": event.id, "event": event.kind, "data": data, "sep": "\n"}

    if not services.streams.take():
        detail = "too many event streams are open: poll the solve, or try again shortly"
        raise Problem(503, "too_many_streams", detail, headers={"Retry-After": "5"})
    return _Events(lines(), services.streams)
