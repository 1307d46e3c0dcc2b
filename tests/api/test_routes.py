"""Rules that hold for every route."""

from __future__ import annotations

import httpx
import pytest
from fastapi import APIRouter

from api.auth import public
from api.main import create_app
from api.routing import check_every_route
from jobs.settings import Settings
from tests.api.test_every_route import PUBLIC, filled


def test_a_route_that_does_not_say_who_may_call_it_stops_the_start() -> None:
    router = APIRouter()

    @router.get("/open")
    def forgotten() -> None: ...

    with pytest.raises(RuntimeError, match="/open does not declare"):
        check_every_route(router.routes)


def test_every_documented_route_but_the_public_ones_wants_a_key(anonymous: httpx.Client) -> None:
    paths = anonymous.get("/openapi.json").json()["paths"]
    for path, operations in paths.items():
        for method in operations:
            answer = anonymous.request(method, filled(path))
            assert (answer.status_code == 401) == (path not in PUBLIC), (method, path)
    assert public.__doc__


def test_without_redis_the_start_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="DMFT_REDIS_URL"):
        create_app(Settings(redis_url=""))
