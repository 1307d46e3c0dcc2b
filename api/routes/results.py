"""Results: JSON, NPZ and single kernels."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Annotated, Any, Literal, cast

import anyio
import numpy as np
from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import FileResponse, StreamingResponse
from numpy.typing import NDArray
from pydantic_core import to_json
from starlette.types import Message, Receive, Scope, Send

from api.auth import CurrentUser, user
from api.problems import Problem, invalid
from api.routing import Route
from api.services import Services, ServicesDep
from dmft_schema import FieldError, Job, KernelSlice, ResultDocument, kernel_slice
from jobs import own_results
from jobs.artifacts import RESULT_JSON, RESULT_NPZ
from jobs.keys import User
from jobs.own_results import Labels, Spliced

router = APIRouter(prefix="/v1/solves", tags=["results"], dependencies=[Depends(user)], route_class=Route)


def finished(services: Services, job_id: str, caller: User) -> tuple[Job, str]:
    """A finished solve and the name of its files, or the problem that says why there are none."""
    job = services.job_of(job_id, caller)
    if not job.status.final:
        waiting = f" ({job.waiting_reason})" if job.waiting_reason else ""
        raise Problem(409, "job_not_finished", f"solve {job_id} is {job.status}{waiting}")
    try:
        name = services.store.artifact(job_id)
    except LookupError:
        raise Problem(
            410, "result_expired", f"the result was removed on {job.expires_at}; solve it again"
        ) from None
    if name is None:
        why = f": {job.error.message}. {job.error.advice}" if job.error else ""
        raise Problem(404, "no_result", f"solve {job_id} {job.status} before it had a result{why}")
    return job, name


class _File(FileResponse):
    """A stored file, by ranges; what cannot be had of it is a problem like any other."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["state"]["method"] == "HEAD":
            scope = {**scope, "method": "HEAD"}  # nothing is read then
        refused = False

        async def send_checked(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] in (400, 416):
                refused = True
                size = int(self.headers["content-length"])
                detail = f"the Range asked for is none of this file of {size} bytes"
                headers = {"Content-Range": f"bytes */{size}"}
                problem = Problem(416, "range_not_satisfiable", detail, headers=headers)
                await problem.response(scope["state"]["request_id"])(scope, receive, send)
            elif not refused:
                await send(message)

        await super().__call__(scope, receive, send_checked)


class _Spliced(_File):
    """The same of a file of which only a part is stored."""

    def __init__(self, path: Path, content: Spliced, changed: float, **options: Any) -> None:
        known = list(path.stat())
        known[stat.ST_SIZE], known[stat.ST_MTIME] = content.size, int(changed)
        super().__init__(path, stat_result=os.stat_result(known), **options)
        self._content = content

    @asynccontextmanager
    async def _open_file(self) -> AsyncIterator[anyio.AsyncFile[bytes]]:
        yield anyio.wrap_file(cast(IO[bytes], io.BufferedReader(self._content)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._content.close()


_SPLICE = {RESULT_JSON: own_results.document, RESULT_NPZ: own_results.archive}


def _file(
    services: Services, job: Job, artifact: str, file: str, media_type: str, if_none_match: str | None
) -> Response:
    path = services.artifacts.result_file(artifact, file)
    its_own = services.artifacts.is_of(artifact, job.id)
    labels = Labels.of(job)
    # An attempt's files never change, so the attempt's name is a strong validator.
    etag = f'"{artifact}"' if its_own else own_results.validator(artifact, labels)
    known = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    if etag in known or "*" in known:
        return Response(status_code=304, headers={"ETag": etag})
    if its_own:
        return _File(path, media_type=media_type, headers={"ETag": etag})
    content = _SPLICE[file](path, labels)
    changed = job.finished_at.timestamp() if job.finished_at else 0.0
    return _Spliced(path, content, changed, media_type=media_type, headers={"ETag": etag})


IfNoneMatch = Annotated[str | None, Header()]


@router.get("/{job_id}/result", response_model=ResultDocument)
def result(
    job_id: str, services: ServicesDep, caller: CurrentUser, if_none_match: IfNoneMatch = None
) -> Response:
    """Curves, predictions, summary and diagnostics. Failed and cancelled solves may have a partial one."""
    job, name = finished(services, job_id, caller)
    return _file(services, job, name, RESULT_JSON, "application/json", if_none_match)


@router.get(
    "/{job_id}/result.npz",
    response_class=FileResponse,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
def result_npz(
    job_id: str, services: ServicesDep, caller: CurrentUser, if_none_match: IfNoneMatch = None
) -> Response:
    """The same arrays and the kernels, as NPZ. Ranges are honoured."""
    job, name = finished(services, job_id, caller)
    response = _file(services, job, name, RESULT_NPZ, "application/octet-stream", if_none_match)
    response.headers["Content-Disposition"] = f'attachment; filename="{job_id}.npz"'
    return response


@router.get("/{job_id}/kernels/{kernel}", response_model=KernelSlice)
def kernel(
    job_id: str,
    kernel: Literal["phi", "g", "ntk", "a", "b"],
    services: ServicesDep,
    caller: CurrentUser,
    layer: Annotated[
        int | None, Query(description="From 1 (a, b: to depth - 1); negative from the end.")
    ] = None,
    t: Annotated[int, Query(description="Index into the kernel times; negative from the end.")] = -1,
    s: Annotated[int | None, Query(description="The other time; t when absent.")] = None,
) -> Response:
    """One kernel or response between two times, [P, P] (or [P, C, P, C] for g and ntk with C > 1 outputs)."""
    _, name = finished(services, job_id, caller)
    path = services.artifacts.result_file(name, RESULT_NPZ)
    with np.load(path, allow_pickle=False) as arrays:
        try:
            values = kernel_slice(arrays, kernel, layer, t, s)
            steps = arrays["kernel_times"]
        except KeyError as missing:
            raise Problem(404, "no_such_kernel", str(missing.args[0])) from None
        except (IndexError, ValueError) as wrong:
            raise invalid([FieldError(loc=["query"], msg=str(wrong))]) from None
        head = {"kernel": kernel, "layer": layer, "t": int(steps[t]), "s": int(steps[t if s is None else s])}
    return StreamingResponse(_in_rows(head, values), media_type="application/json")


def _in_rows(head: dict[str, Any], values: NDArray[Any]) -> Iterator[bytes]:
    """The answer as JSON, row by row: at once it would hold up everybody, and take twenty times its size."""
    yield to_json(head)[:-1] + b',"values":['
    for index, row in enumerate(values):
        yield (b"," if index else b"") + to_json(row.tolist(), inf_nan_mode="null")
    yield b"]}"
