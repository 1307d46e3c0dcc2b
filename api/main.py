"""The FastAPI application, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware

from api import openapi, problems
from api.metrics import Metrics
from api.middleware import RequestContext
from api.routes import datasets, figures, results, server, solves
from api.routing import check_every_route
from api.services import Services
from jobs.configuration import load
from jobs.settings import Settings

_REQUEST_HEADERS = [
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "If-Range",
    "Last-Event-ID",
    "Prefer",
    "Range",
    "X-Request-ID",
]
_ANSWER_HEADERS = [
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Location",
    "Preference-Applied",
    "Retry-After",
    "X-Request-ID",
]
"""What pages of other origins may send, and read."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application for these settings (from the environment if None).

    Raises:
        RuntimeError: a route does not declare who may call it, or no Redis is named.
        SettingsError: the environment's settings are wrong.
    """
    settings = settings or load()
    if not settings.redis_url:
        raise RuntimeError("DMFT_REDIS_URL is not set: `dmft serve` sets it, or point it at a Redis")
    services = Services.connect(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await services.close()

    # FastAPI's own reference page loads its scripts from the internet, which a lab server may not reach.
    app = FastAPIOffline(
        title="dmft-service",
        version=server.VERSION,
        description="Dynamical mean-field theory of wide neural networks, solved over HTTP.",
        lifespan=lifespan,
        redoc_url=None,
        responses=openapi.PROBLEMS,
    )
    app.state.services = services
    for module in (solves, results, figures, datasets, server):
        check_every_route(module.router.routes)
        app.include_router(module.router)
    problems.install(app)
    openapi.install(app)
    app.state.metrics = Metrics(server.VERSION)
    app.add_middleware(
        RequestContext,
        metrics=app.state.metrics,
        max_body_bytes=settings.max_body_bytes,
        root_path=settings.root_path,
    )
    origins = [origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()]
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=_REQUEST_HEADERS,
            expose_headers=_ANSWER_HEADERS,
        )
    return app
