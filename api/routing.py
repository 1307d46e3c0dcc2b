"""What every route does before its own work: who calls, what was asked for, in which media type.

In this order, and before a byte of the body is read: nobody without a key makes the server work.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from email.message import Message
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.routing import BaseRoute

from api import auth
from api.problems import Problem, invalid
from dmft_schema import FieldError


class Route(APIRoute):
    """A route that checks the caller's key, the names of query parameters and the body's media type."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()
        access = auth.access_of(self.dependant)
        parameters = sorted(_query_parameters(self.dependant))
        wants_json = "application/json" in _media_types(self)

        async def guarded(request: Request) -> Response:
            if access is not auth.public:
                request.state.user = await auth.authenticate(request)
            _check_query(request, parameters)
            if wants_json:
                _check_json(request)
            return await handler(request)

        return guarded


def check_every_route(routes: Iterable[BaseRoute]) -> None:
    """Refuse to start with a route that does not say who may call it, or does not check it.

    Raises:
        RuntimeError: naming the route.
    """
    for route in routes:
        if not isinstance(route, APIRoute):
            continue
        if auth.access_of(route.dependant) is None:
            raise RuntimeError(f"route {route.path} does not declare who may call it")
        if not isinstance(route, Route):
            raise RuntimeError(f"route {route.path} is not made with route_class=Route")


def _query_parameters(dependant: Dependant) -> set[str]:
    names: set[str] = set()
    for field in dependant.query_params:
        several = field.field_info.annotation
        if isinstance(several, type) and issubclass(several, BaseModel):
            names |= set(several.model_fields)
        else:
            names.add(field.alias)
    return names.union(*(_query_parameters(child) for child in dependant.dependencies))


def _media_types(route: APIRoute) -> Iterable[str]:
    declared: dict[str, Any] = (route.openapi_extra or {}).get("requestBody", {}).get("content", {})
    return declared if declared else ["application/json"] if route.body_field else []


def _check_query(request: Request, known: list[str]) -> None:
    unknown = sorted(set(request.query_params) - set(known))
    if unknown:
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        message = f"this route has no such query parameter; {takes}"
        raise invalid([FieldError(loc=["query", name], msg=message) for name in unknown])


def _check_json(request: Request) -> None:
    given = request.headers.get("content-type")
    parsed = Message()
    parsed["content-type"] = given or "none"
    subtype = parsed.get_content_subtype()
    if given is None or parsed.get_content_maintype() != "application" or subtype.split("+")[-1] != "json":
        got = "it came without one" if given is None else f"it came as {given}"
        raise Problem(
            415,
            "unsupported_media_type",
            f"the body must be JSON, sent with the header `Content-Type: application/json`; {got}",
            headers={"Accept-Post": "application/json"} if request.method == "POST" else {},
        )
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise Problem(415, "unsupported_media_type", f"send the body as it is, not with encoding {encoding}")
