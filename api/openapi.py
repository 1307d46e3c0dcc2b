"""Parts of the OpenAPI document that FastAPI cannot read off a route: bodies that routes read themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from api.problems import MEDIA_TYPE
from dmft_schema import ProblemDetail, SolveRequest

_REF = "#/components/schemas/{model}"
_PROBLEM = {"schema": {"$ref": _REF.format(model=ProblemDetail.__name__)}}

PROBLEMS: dict[int | str, dict[str, Any]] = {
    kind: {"description": "A problem (RFC 9457).", "content": {MEDIA_TYPE: _PROBLEM}}
    for kind in ("4XX", "5XX")
}
"""What every route may answer besides."""


def json_body(model: type[BaseModel], examples: Mapping[str, Any]) -> dict[str, Any]:
    """For `openapi_extra`: the route takes this model as JSON."""
    schema = {"$ref": _REF.format(model=model.__name__)}
    content = {"application/json": {"schema": schema, "examples": dict(examples)}}
    return {"requestBody": {"required": True, "content": content}}


def install(app: FastAPI) -> None:
    """Add the models of such bodies, and of problems, to the document's schemas."""
    generate = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for model in (SolveRequest, ProblemDetail):
                schema = model.model_json_schema(ref_template=_REF)
                schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = complete  # type: ignore[method-assign]
