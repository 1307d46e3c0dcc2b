"""What the server can do and how it is."""

from __future__ import annotations

from importlib import metadata, resources

from fastapi import APIRouter, Depends
from fastapi.responses import HTMLResponse

from api.auth import public
from api.problems import Problem
from api.routing import Route
from api.services import ServicesDep
from dmft_schema import Capabilities

router = APIRouter(tags=["server"], dependencies=[Depends(public)], route_class=Route)

VERSION = metadata.version("dmft-service")
_PAGE = (resources.files("api") / "static" / "index.html").read_text()


@router.get("/v1/capabilities", response_model=Capabilities)
async def capabilities(services: ServicesDep) -> Capabilities:
    """Methods, activations, losses, architectures and limits of this server."""
    settings = services.settings
    return Capabilities.of_contract(
        VERSION,
        max_streams=settings.max_streams,
        max_body_bytes=settings.max_body_bytes,
        max_running_per_user=settings.max_running_per_user,
        max_queued_per_user=settings.max_queued_per_user,
        retention_days=settings.retention_days,
        device=settings.device,
        memory_gb=round(settings.solve_bytes / 1e9, 1),
    )


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The API process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(services: ServicesDep) -> dict[str, str | int]:
    """The store answers and a worker is alive."""
    workers = await services.live_workers()
    if workers == 0:
        raise Problem(503, "no_live_worker", "no worker is alive: start one with `dmft worker`")
    return {"status": "ready", "workers": workers}


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def page() -> str:
    """The page."""
    return _PAGE
