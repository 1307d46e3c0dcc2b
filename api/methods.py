"""The methods that a path takes: for `Allow`, which goes with every 405 and every answer to OPTIONS."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.routing import BaseRoute, Match
from starlette.types import Scope

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def allowed_methods(routes: Iterable[BaseRoute], scope: Scope) -> list[str]:
    """The methods that the path of a request takes."""
    found = []
    for method in METHODS:
        # A HEAD is answered like a GET without its body (api/middleware.py).
        asked = {**scope, "method": "GET" if method == "HEAD" else method}
        if any(route.matches(asked)[0] == Match.FULL for route in routes):
            found.append(method)
    return [*found, "OPTIONS"]
