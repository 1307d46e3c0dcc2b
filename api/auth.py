"""Who may call a route. Every route depends on `public`, `user` or `admin`; the server does not start
with one that does not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.routing import BaseRoute

from api.problems import Problem
from jobs.keys import User

_bearer = HTTPBearer(auto_error=False, description="An API key, made with `dmft keys create`.")


def public() -> None:
    """Anybody may call this route."""


def user(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> User:
    """The user whose key came with the request."""
    challenge = {"WWW-Authenticate": "Bearer"}
    if credentials is None:
        raise Problem(
            401,
            "missing_key",
            "send an API key: `Authorization: Bearer <key>`. The server's own key is in "
            "<data-dir>/admin.key; more are made with `dmft keys create`",
            headers=challenge,
        )
    found = request.app.state.services.keys.authenticate(credentials.credentials)
    if found is None:
        raise Problem(401, "invalid_key", "this API key is unknown or was revoked", headers=challenge)
    return found


def admin(caller: Annotated[User, Depends(user)]) -> User:
    """The same, for admins only."""
    if not caller.is_admin:
        raise Problem(403, "admins_only", "this needs an admin's API key")
    return caller


CurrentUser = Annotated[User, Depends(user)]


def _all_calls(dependant: Dependant) -> set[object]:
    calls: set[object] = {dependant.call}
    for child in dependant.dependencies:
        calls |= _all_calls(child)
    return calls


def check_every_route(routes: Iterable[BaseRoute]) -> None:
    """Refuse to start with a route that does not say who may call it.

    Raises:
        RuntimeError: naming the route.
    """
    for route in routes:
        if isinstance(route, APIRoute) and not _all_calls(route.dependant) & {public, user, admin}:
            raise RuntimeError(f"route {route.path} does not declare who may call it")
