"""The FastAPI application, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from api import problems
from api.auth import check_every_route
from api.middleware import RequestContext
from api.routes import datasets, results, server, solves
from api.services import Services
from jobs.settings import Settings


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application for these settings (from the environment if None).

    Raises:
        RuntimeError: a route does not declare who may call it.
    """
    settings = settings or Settings()
    if not settings.redis_url:
        raise RuntimeError("DMFT_REDIS_URL is not set: `dmft serve` sets it, or point it at a Redis")
    services = Services.connect(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await services.streams.aclose()

    # FastAPI's own reference page loads its scripts from the internet, which a lab server may not reach.
    app = FastAPIOffline(
        title="dmft-service",
        version=server.VERSION,
        description="Dynamical mean-field theory of wide neural networks, solved over HTTP.",
        lifespan=lifespan,
        redoc_url=None,
        responses={
            "4XX": {"description": "problem+json", "model": problems.ProblemDetail},
            "5XX": {"description": "problem+json", "model": problems.ProblemDetail},
        },
    )
    app.state.services = services
    for module in (solves, results, datasets, server):
        check_every_route(module.router.routes)
        app.include_router(module.router)
    problems.install(app)
    app.add_middleware(RequestContext, max_body_bytes=settings.max_body_bytes)
    return app
