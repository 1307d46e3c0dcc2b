"""From plain keyword arguments to a SolveRequest. The names are read off the request's models."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import BaseModel, ValidationError

from dmft_client.errors import InvalidRequest
from dmft_schema import FieldError, Outputs, SolveRequest, Training
from dmft_schema.data import DigitsData, InputData, KernelData, UploadedData
from dmft_schema.methods import METHODS
from dmft_schema.network import ARCHITECTURES, BaseNetwork
from dmft_schema.refusal import problem_of, problem_with
from dmft_schema.upload import UploadError, of_arrays, to_npz

# Named datasets and methods both have samples and a seed; the method keeps the plain names.
_RENAMED = {"points": "samples", "test_points": "test_samples", "data_seed": "seed"}


def _paths() -> dict[str, tuple[str, ...]]:
    """Keyword -> place in the request."""
    paths: dict[str, tuple[str, ...]] = {name: (name,) for name in ("name", "tags", "priority", "reuse")}
    sections: dict[str, tuple[type[BaseModel], ...]] = {
        "data": (KernelData, InputData, DigitsData, UploadedData),
        "network": tuple(ARCHITECTURES.values()),
        "training": (Training,),
        "outputs": (Outputs,),
    }
    for section, models in sections.items():
        for model in models:
            paths |= {field: (section, field) for field in model.model_fields}
    for method in METHODS:
        paths |= {field: ("method", field) for field in method.model_fields if field != "name"}
    paths |= {keyword: ("data", field) for keyword, field in _RENAMED.items()}
    return paths | {"method": ("method", "name")}


PATHS = _paths()
ARRAYS = {*KernelData.model_fields, *InputData.model_fields}


def _plain(value: Any, keyword: str) -> Any:
    """Numbers and lists of numbers out of whatever holds them: numpy and torch scalars and vectors."""
    if isinstance(value, str | bytes | bool | int | float | list | tuple | dict) or not hasattr(
        value, "tolist"
    ):
        return value
    try:
        return value.tolist()
    except Exception as error:
        message = f"a {type(value).__qualname__} that does not convert to numbers ({error})"
        raise InvalidRequest(problem_with([FieldError(loc=list(PATHS[keyword]), msg=message)])) from None


def place(keyword: str) -> tuple[str, ...]:
    """Where a keyword stands in a request, as the names of fields.

    Raises:
        TypeError: it is unknown; near misses are named.
    """
    if keyword in PATHS:
        return PATHS[keyword]
    near = difflib.get_close_matches(keyword, [*PATHS, "network"], n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise TypeError(f"solve() got an unknown argument {keyword!r}{hint}")


def _network(network: Any) -> dict[str, Any]:
    """The request's network, as far as `network` says it: what nn.serial made, a model, or as in JSON."""
    if isinstance(network, list | tuple):
        return {"architecture": "composed", "layers": list(network)}
    if isinstance(network, BaseNetwork):
        return {name: getattr(network, name) for name in network.model_fields_set | {"architecture"}}
    if isinstance(network, dict):
        return dict(network)
    raise TypeError(f"network must be made by dmft_client.nn.serial, or a dict; got {network!r}")


def build(arguments: dict[str, Any]) -> SolveRequest:
    """The request that keyword arguments describe.

    Raises:
        TypeError: an unknown keyword; near misses are named.
        InvalidRequest: a value that the server would refuse.
    """
    arguments = dict(arguments)
    network = arguments.pop("network", None)
    nested: dict[str, Any] = {} if network is None else {"network": _network(network)}
    for keyword, value in arguments.items():
        *sections, field = place(keyword)
        if value is None:
            continue
        target = nested.setdefault(sections[0], {}) if sections else nested
        target[field] = value if keyword in ARRAYS else _plain(value, keyword)
    try:
        return SolveRequest.model_validate(nested)
    except ValidationError as error:
        raise InvalidRequest(problem_of(error)) from None


def upload(arrays: dict[str, Any]) -> bytes:
    """The NPZ to upload for these arrays.

    Raises:
        InvalidRequest: they make no dataset.
    """
    try:
        return to_npz(of_arrays(arrays))
    except UploadError as error:
        raise InvalidRequest(problem_with([FieldError(loc=[], msg=str(error))])) from None
    except ValidationError as error:
        raise InvalidRequest(problem_of(error)) from None
