"""A request as answers show it: sizes where the request has arrays, everything else as it was asked for."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

LONGEST_LIST = 100
"""Entries of a list that are shown."""


class Part(BaseModel):
    """Options, by their names in the request. What another version knows besides is shown too."""

    model_config = ConfigDict(extra="allow")


class DataSummary(Part):
    """What is said of the data: of arrays only their sizes."""

    kind: str = Field("", description="kernel, inputs, dataset or dataset_id: what the data were given as.")
    points: int | None = Field(None, description="Training points P; null for an upload.")
    test_points: int | None = Field(None, description="Test points P'.")
    outputs: int | None = Field(None, description="Outputs C.")


class MethodSummary(Part):
    """The method and its options."""

    name: str = ""


class RequestSummary(Part):
    """What was asked for. The whole of it, arrays too, is at `links.request`."""

    data: DataSummary = DataSummary()
    network: Part = Part()
    training: Part = Part()
    method: MethodSummary = MethodSummary()
    outputs: Part = Part()


def summarise(request: dict[str, Any]) -> RequestSummary:
    """The summary of a request as a document, of this version or another: nothing of it is validated.

    Args:
        request: as in JSON; its arrays may be numpy's.
    """
    parts = {name: _part(request.get(name)) for name in ("network", "training", "method", "outputs")}
    rest = {name: request[name] for name in ("name", "tags", "priority", "reuse") if name in request}
    return RequestSummary.model_validate({"data": _data(request.get("data")), **parts, **rest})


def _part(options: Any) -> dict[str, Any]:
    shown = {}
    for name, value in (options if isinstance(options, dict) else {}).items():
        if isinstance(value, list) and len(value) > LONGEST_LIST:
            shown[f"{name}_count"] = len(value)
            value = value[:LONGEST_LIST]
        shown[name] = value
    return shown


def _data(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        return {}
    kind = next((key for key in ("kernel", "inputs", "dataset", "dataset_id") if key in data), "")
    shown: dict[str, Any] = {"kind": kind}
    if kind in ("kernel", "inputs"):
        tests = data.get("test_kernel" if kind == "kernel" else "test_inputs")
        targets = data.get("targets", ())
        first = targets[0] if len(targets) else 0.0
        shown["points"] = len(data[kind])
        shown["test_points"] = 0 if tests is None else len(tests)
        shown["outputs"] = len(first) if hasattr(first, "__len__") else 1
        if kind == "inputs":
            shape = _shape(data[kind][0]) if len(data[kind]) else [0]
            shown |= {"dimension": shape[0]} if len(shape) < 2 else {"shape": shape}
        return shown
    shown |= data
    if kind == "dataset":
        classes = data.get("classes", ())
        shown["points"], shown["test_points"] = data.get("samples"), data.get("test_samples")
        shown["outputs"] = 1 if len(classes) == 2 else len(classes)
    return shown


def _shape(point: Any) -> list[int]:
    """Of nested lists or an array, along their first entries."""
    if hasattr(point, "shape"):
        return list(point.shape)
    if not isinstance(point, list):
        return []
    return [len(point), *(_shape(point[0]) if point else [])]
