"""Who may call a route. Every route depends on `public`, `user` or `admin`; the server does not start
with one that does not (api/routing.py, which asks here before anything else of a request is looked at)."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param

from api.problems import Problem
from api.services import Services
from jobs.keys import User

_bearer = HTTPBearer(auto_error=False, description="An API key, made with `dmft keys create`.")


async def public() -> None:
    """Anybody may call this route."""


async def user(
    request: Request,
    # Documents the key that api/routing.py has looked at already.
    _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> User:
    """The user whose key came with the request."""
    return cast(User, request.state.user)


async def admin(caller: Annotated[User, Depends(user)]) -> User:
    """The same, for admins only."""
    if not caller.is_admin:
        raise Problem(403, "admins_only", "this needs an admin's API key")
    return caller


CurrentUser = Annotated[User, Depends(user)]


def key_of(request: Request) -> str | None:
    """The API key that came with a request."""
    scheme, key = get_authorization_scheme_param(request.headers.get("authorization"))
    return key if scheme.lower() == "bearer" and key else None


async def authenticate(request: Request) -> User:
    """The user whose key came with a request; reads nothing but its headers.

    Raises:
        Problem: 401.
        redis.RedisError: the store does not answer.
    """
    challenge = {"WWW-Authenticate": "Bearer"}
    key = key_of(request)
    if key is None:
        raise Problem(
            401,
            "missing_key",
            "send an API key: `Authorization: Bearer <key>`. The server's own key is in "
            "<data-dir>/admin.key; more are made with `dmft keys create`",
            headers=challenge,
        )
    services: Services = request.app.state.services
    found = await services.identify(key)
    if found is None:
        raise Problem(401, "invalid_key", "this API key is unknown or was revoked", headers=challenge)
    return found


def access_of(dependant: Dependant) -> object | None:
    """Which of public, user and admin a route depends on, the strictest; None if on none of them."""
    calls = _all_calls(dependant)
    return next((access for access in (admin, user, public) if access in calls), None)


def _all_calls(dependant: Dependant) -> set[object]:
    calls: set[object] = {dependant.call}
    return calls.union(*(_all_calls(child) for child in dependant.dependencies))
