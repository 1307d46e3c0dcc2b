"""What the server can do and how it is."""

from __future__ import annotations

import platform
from importlib import metadata, resources

import redis
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from api.auth import admin, public
from api.metrics import CONTENT_TYPE
from api.problems import Problem
from api.routing import Route
from api.services import ServicesDep
from dmft_schema import Capabilities
from dmft_schema.numerics import NUMERICS_VERSION
from jobs.workers import Crew

router = APIRouter(tags=["server"], dependencies=[Depends(public)], route_class=Route)


class Version(BaseModel):
    """Versions that matter to whoever compares two servers.

    Attributes:
        version: of the service.
        numerics: results of solves with the same number are the same.
        python: that runs the API.
    """

    version: str
    numerics: str
    python: str


VERSION = metadata.version("dmft-service")
_PAGE = (resources.files("api") / "static" / "index.html").read_text()


@router.get("/v1/capabilities", response_model=Capabilities)
async def capabilities(services: ServicesDep) -> Capabilities:
    """Methods, activations, losses, architectures and limits of this server.

    `limits.workers` says what each live worker can take, `limits.memory_gb` the most that one gives a solve.
    """
    settings = services.settings
    try:
        crew = await services.crew()
    except redis.RedisError:
        crew = Crew(0)
    roomiest = max(crew.facts, key=lambda worker: worker.memory_bytes, default=None)
    most = settings.solve_bytes if roomiest is None or not crew.all_known else roomiest.memory_bytes
    return Capabilities.of_contract(
        VERSION,
        max_streams=settings.max_streams,
        max_body_bytes=settings.max_body_bytes,
        max_running_per_user=settings.max_running_per_user,
        max_queued_per_user=settings.max_queued_per_user,
        retention_days=settings.retention_days,
        device=settings.device if roomiest is None else roomiest.device,
        memory_gb=round(most / 1e9, 1),
        workers=[worker.for_users() for worker in crew.facts],
    )


@router.get("/version")
async def version() -> Version:
    """What runs here."""
    return Version(version=VERSION, numerics=NUMERICS_VERSION, python=platform.python_version())


@router.get(
    "/metrics",
    dependencies=[Depends(admin)],
    response_class=Response,
    responses={200: {"content": {CONTENT_TYPE: {}}, "description": "Prometheus' text format."}},
)
def metrics(request: Request, services: ServicesDep) -> Response:
    """Solves by status, the queue, workers, disks, Redis, and this process's answers; for an admin's key."""
    exposition = request.app.state.metrics.exposition(services.store.gauges())
    return Response(exposition, headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"})


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The API process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(services: ServicesDep) -> dict[str, str | int]:
    """The store answers and a worker is alive."""
    workers = (await services.crew()).count
    if workers == 0:
        raise Problem(503, "no_live_worker", "no worker is alive: start one with `dmft worker`")
    return {"status": "ready", "workers": workers}


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def page() -> str:
    """The page."""
    return _PAGE
