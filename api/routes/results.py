"""Results: JSON, NPZ and single kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import FileResponse

from api.auth import CurrentUser, user
from api.problems import Problem, invalid
from api.services import Services, ServicesDep
from dmft_schema import FieldError, ResultDocument, kernel_slice
from jobs.artifacts import RESULT_JSON, RESULT_NPZ
from jobs.keys import User

router = APIRouter(prefix="/v1/solves", tags=["results"], dependencies=[Depends(user)])


def _artifact(services: Services, job_id: str, caller: User) -> str:
    """The name of a finished solve's files, or the problem that says why there are none."""
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
    return name


def _file(path: Path, name: str, media_type: str, if_none_match: str | None) -> Response:
    # An attempt's files never change, so the attempt's name is a strong validator.
    etag = f'"{name}"'
    if if_none_match is not None and etag in if_none_match:
        return Response(status_code=304, headers={"ETag": etag})
    return FileResponse(path, media_type=media_type, headers={"ETag": etag})


IfNoneMatch = Annotated[str | None, Header()]


@router.get("/{job_id}/result", response_model=ResultDocument)
def result(
    job_id: str, services: ServicesDep, caller: CurrentUser, if_none_match: IfNoneMatch = None
) -> Response:
    """Curves, predictions, summary and diagnostics. Failed and cancelled solves may have a partial one."""
    name = _artifact(services, job_id, caller)
    path = services.artifacts.result_file(name, RESULT_JSON)
    return _file(path, name, "application/json", if_none_match)


@router.get(
    "/{job_id}/result.npz",
    response_class=FileResponse,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
def result_npz(
    job_id: str, services: ServicesDep, caller: CurrentUser, if_none_match: IfNoneMatch = None
) -> Response:
    """The same arrays and the kernels, as NPZ. Ranges are honoured."""
    name = _artifact(services, job_id, caller)
    path = services.artifacts.result_file(name, RESULT_NPZ)
    response = _file(path, name, "application/octet-stream", if_none_match)
    response.headers["Content-Disposition"] = f'attachment; filename="{job_id}.npz"'
    return response


@router.get("/{job_id}/kernels/{kernel}")
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
) -> dict[str, Any]:
    """One kernel or response between two times, [P, P] (or [P, C, P, C] for g and ntk with C > 1 outputs)."""
    name = _artifact(services, job_id, caller)
    path = services.artifacts.result_file(name, RESULT_NPZ)
    with np.load(path, allow_pickle=False) as arrays:
        try:
            values = kernel_slice(arrays, kernel, layer, t, s)
            steps = arrays["kernel_times"]
        except KeyError as missing:
            raise Problem(404, "no_such_kernel", str(missing.args[0])) from None
        except (IndexError, ValueError) as wrong:
            raise invalid([FieldError(loc=["query"], msg=str(wrong))]) from None
        return {
            "kernel": kernel,
            "layer": layer,
            "t": int(steps[t]),
            "s": int(steps[t if s is None else s]),
            "values": values.tolist(),
        }
