"""POST /v1/solves and what can be asked of a solve."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.auth import CurrentUser, user
from api.examples import SOLVE_EXAMPLES
from api.problems import Problem, invalid
from api.services import Services, ServicesDep
from api.streams import follow
from dmft_schema import FieldError, Job, JobPage, JobStatus, SolveRequest, UploadedData
from dmft_schema.memory import Demand, Sized, Sizes, shortage
from dmft_schema.numerics import NUMERICS_VERSION
from dmft_schema.support import check_size, check_targets
from jobs.keys import User
from worker import tickets

router = APIRouter(prefix="/v1/solves", tags=["solves"], dependencies=[Depends(user)])

_EVENT_ID = re.compile(r"^\d+(-\d+)?$")
_PREFER_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d+)")


@router.post("", status_code=202, response_model=Job)
async def create(
    body: Annotated[SolveRequest, Body(openapi_examples=SOLVE_EXAMPLES)],
    response: Response,
    services: ServicesDep,
    caller: CurrentUser,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
    prefer: Annotated[str | None, Header()] = None,
) -> Job:
    """Queue a solve. `Prefer: wait=N` answers when it is finished, or after N seconds."""
    job, created = await run_in_threadpool(_submit, services, body, caller, idempotency_key)
    response.headers["Location"] = f"/v1/solves/{job.id}"
    if not created:
        response.status_code = 200
    wanted = _PREFER_WAIT.search(prefer or "")
    if wanted:
        seconds = min(float(wanted[1]), services.settings.max_wait_seconds)
        async for _ in follow(services, job.id, "0", time.monotonic() + seconds):
            pass
        response.headers["Preference-Applied"] = f"wait={seconds:g}"
        job = await run_in_threadpool(services.store.get, job.id)
    return job


def _submit(services: Services, body: SolveRequest, caller: User, key: str | None) -> tuple[Job, bool]:
    data = body.data
    sizes: Sized = _check_dataset(services, body, caller) if isinstance(data, UploadedData) else data
    lacking = shortage(Demand.of(body, sizes), services.settings.solve_bytes)
    if lacking is not None:
        raise Problem(422, "would_not_fit", f"{lacking.message}. {lacking.advice}")
    device_class = services.settings.device.split(":")[0]
    submission = services.store.submit(
        body,
        caller.id,
        owner_name=caller.name,
        request_hash=body.content_hash(NUMERICS_VERSION, device_class),
        idempotency_key=key,
    )
    if submission.job.status is JobStatus.QUEUED:
        tickets.send(services.celery)
    return submission.job, submission.created


def _check_dataset(services: Services, body: SolveRequest, caller: User) -> Sizes:
    """The sizes of an uploaded dataset that the request goes with."""
    assert isinstance(body.data, UploadedData)
    known = services.artifacts.dataset_description(body.data.dataset_id, caller.id)
    place: list[str | int] = ["data", "dataset_id"]
    if known is None:
        message = "you have no dataset with this id; upload it with POST /v1/datasets"
        raise invalid([FieldError(loc=place, msg=message)])
    try:
        check_size(body, known["points"] + known["test_points"], known["outputs"])
    except ValueError as error:
        raise invalid([FieldError(loc=["training", "steps"], msg=str(error))]) from None
    try:
        check_targets(body, known["target_kinds"])
    except ValueError as error:
        raise invalid([FieldError(loc=["training", "loss"], msg=str(error))]) from None
    return Sizes(known["points"], known["test_points"], known["outputs"])


@router.get("", response_model=JobPage)
def list_solves(
    services: ServicesDep,
    caller: CurrentUser,
    status: JobStatus | None = None,
    tag: str | None = None,
    owner: Annotated[
        str | None, Query(description="Admins: one user's solves, by name or id, or `*`.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(pattern=r"^\d{1,18}$")] = None,
) -> JobPage:
    """Your solves, newest first."""
    whose: str | None = caller.id
    if owner not in (None, caller.id):
        # `*` first: it is no name, whatever a key of an earlier version may be called.
        found = None if owner == "*" else services.keys.id_of(owner)
        if found != caller.id and not caller.is_admin:
            raise Problem(403, "admins_only", "only admins may list other users' solves")
        whose = None if owner == "*" else found or owner
    return services.store.page(owner=whose, status=status, tag=tag, limit=limit, cursor=cursor)


@router.get("/{job_id}", response_model=Job)
def get(job_id: str, services: ServicesDep, caller: CurrentUser) -> Job:
    """One solve: its status, progress, and why it still waits."""
    return services.job_of(job_id, caller)


@router.post("/{job_id}/cancel", status_code=202, response_model=Job)
def cancel(job_id: str, services: ServicesDep, caller: CurrentUser) -> Job:
    """Ask a solve to stop. A running one keeps the trajectory it had reached."""
    services.job_of(job_id, caller)
    return services.store.cancel(job_id)


@router.delete("/{job_id}", status_code=204)
def delete(job_id: str, services: ServicesDep, caller: CurrentUser) -> None:
    """Forget a finished solve and its files. Repeated, it answers the same for some time."""
    if services.store.deleted_by(job_id) != caller.id:
        services.job_of(job_id, caller)
    unused = services.store.delete(job_id)
    if unused:
        services.artifacts.remove_result(unused)
        services.store.removed(unused)


@router.get(
    "/{job_id}/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def events(
    job_id: str,
    request: Request,
    services: ServicesDep,
    caller: CurrentUser,
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """Server-sent events, `progress` and `status`, up to the final status. `Last-Event-ID` resumes."""
    await run_in_threadpool(services.job_of, job_id, caller)
    after = last_event_id or "0"
    if not _EVENT_ID.match(after):
        message = "must be the id of an event of this stream"
        raise invalid([FieldError(loc=["header", "Last-Event-ID"], msg=message)])

    async def lines() -> AsyncIterator[str]:
        async for event in follow(services, job_id, after):
            if event is None:
                yield ": still there\n\n"
            else:
                data = event.model_dump_json(include={"data"}).removeprefix('{"data":')[:-1]
                yield f"id: {event.id}\nevent: {event.kind}\ndata: {data}\n\n"

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(lines(), media_type="text/event-stream", headers=headers)
