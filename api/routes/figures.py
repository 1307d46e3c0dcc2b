"""Pictures of results, drawn in a process of their own."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, Header, Query, Response
from starlette.concurrency import run_in_threadpool

from api.auth import CurrentUser, user
from api.problems import Problem
from api.routes.results import finished
from api.routes.server import VERSION
from api.routing import Route
from api.services import Services, ServicesDep
from dmft_figures import FORMATS, NothingToDraw, Options, render
from jobs.artifacts import RESULT_NPZ

router = APIRouter(prefix="/v1/solves", tags=["results"], dependencies=[Depends(user)], route_class=Route)

Kind = Literal["loss", "kernels", "fields", "alignment", "spectrum", "summary"]
Format = Literal["png", "svg", "pdf"]

_TOO_MUCH = Problem(
    422,
    "picture_too_large",
    "this picture takes more memory or time than the server gives to one: ask for one layer, or download the "
    "NPZ and draw it with `dmft plot`",
)
_CONTENT: dict[str, Any] = {media_type: {} for media_type in FORMATS.values()}


@router.get(
    "/{job_id}/figures/{kind}.{format}",
    response_class=Response,
    responses={200: {"content": _CONTENT, "description": "The picture."}},
)
async def figure(
    job_id: str,
    kind: Kind,
    format: Format,
    options: Annotated[Options, Query()],
    services: ServicesDep,
    caller: CurrentUser,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """A picture of a result. Light on dark with `theme=dark`; one layer with `layer`."""
    _, name = await run_in_threadpool(finished, services, job_id, caller)
    # A result never changes, nor does what one version draws of it.
    drawn = f"{VERSION} {job_id} {name} {kind} {format} {options.model_dump_json()}"
    etag = f'"{hashlib.sha256(drawn.encode()).hexdigest()[:32]}"'
    if etag in (if_none_match or ""):
        return Response(status_code=304, headers={"ETag": etag})
    picture = await services.intake.aside(
        caller.id, draw, job_id, name, kind, format, options, too_much=_TOO_MUCH
    )
    return Response(picture, media_type=FORMATS[format], headers={"ETag": etag})


def draw(services: Services, job_id: str, name: str, kind: Kind, format: Format, options: Options) -> bytes:
    """The picture's bytes.

    Raises:
        Problem: the result holds nothing to draw of this kind.
    """
    path = services.artifacts.result_file(name, RESULT_NPZ)
    with np.load(path, allow_pickle=False) as arrays:
        try:
            return render(kind, {job_id: arrays}, format, options)
        except NothingToDraw as nothing:
            raise Problem(404, "nothing_to_draw", str(nothing)) from None
