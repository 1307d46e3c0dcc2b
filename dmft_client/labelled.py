"""Results with named axes: an xarray.Dataset, and a table of the trajectory.

What the arrays of a result are stands in docs/results.md; here each has its axes by name. An array that this
version does not know is kept too, with axes of its own, so that nothing of a newer server is lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from dmft_client.result import Result

_LAYERED = re.compile(r"(?P<name>.+?)_(?P<layer>\d+)(?P<error>_standard_error)?")

_TWO_TIMES = ("t", "point", "s", "point_s")
_WITH_OUTPUTS = ("t", "point", "output", "s", "point_s", "output_s")

_AXES: dict[str, tuple[tuple[str, ...], ...]] = {
    # name: its axes, by their number
    "times": (("step",),),
    "kernel_times": (("t",),),
    "field_times": (("field_time",),),
    "predictions": (("step", "point"), ("step", "point", "output")),
    "test_predictions": (("step", "test_point"), ("step", "test_point", "output")),
    "phi": (_TWO_TIMES,),
    "g": (_TWO_TIMES, _WITH_OUTPUTS),
    "phi_standard_error": (("t", "point", "point_s"),),
    "g_standard_error": (("t", "point", "point_s"), ("t", "point", "output", "point_s", "output_s")),
    "ntk": (("t", "point", "point_s"), ("t", "point", "output", "point_s", "output_s")),
    "a": (("t", "point", "s"), _TWO_TIMES, ("t", "point", "s", "point_s", "output_s")),
    "b": (("t", "s", "point_s"), _TWO_TIMES, ("t", "point", "output", "s", "point_s")),
    "nngp": (("any_point", "any_point_s"),),
    "ntk_of_layer": (("any_point", "any_point_s"),),
    "iteration_kernel_change": (("iteration",),),
    "iteration_loss_change": (("iteration",),),
    "fields_h": (("field_time", "point", "neuron"),),
    "fields_phi": (("field_time", "point", "neuron"),),
    "fields_z": (("field_time", "point", "neuron"), ("field_time", "point", "output", "neuron")),
    "fields_g": (("field_time", "point", "neuron"), ("field_time", "point", "output", "neuron")),
}

_COORDINATES = ("times", "kernel_times", "field_times")

_WORDS = {
    "loss": "mean over training points of (f - y)^2, summed over outputs",
    "test_loss": "mean over test points of (f - y)^2, summed over outputs",
    "predictions": "f at training points",
    "test_predictions": "f at test points",
    "phi": "feature kernel Phi^l(t, s)",
    "g": "gradient kernel G^l(t, s)",
    "ntk": "neural tangent kernel at equal times",
    "a": "response A^l",
    "b": "response B^l",
    "nngp": "covariance of h^l in the lazy limit",
    "ntk_of_layer": "tangent kernel of h^l in the lazy limit",
}


def to_xarray(result: Result) -> xr.Dataset:
    """A result with named dimensions; layers are stacked along `layer`.

    Dimensions are step (coordinate `learning_time`, eta t), point, test_point, output, layer, and for
    kernels the two times t and s (coordinates: the steps at which kernels were kept) with point and point_s.
    Kernels that are stored as factors stay so: `phi_1_factor` [t, point, ...].

    Attributes of the Dataset are what the result says of itself, as JSON; of each array `long_name`.

    Raises:
        ImportError: xarray is not installed (`pip install 'dmft-service[notebooks]'`).
    """
    import xarray as xr

    variables: dict[str, xr.DataArray] = {}
    stacks: dict[str, dict[int, NDArray]] = {}
    for key, array in result.arrays.items():
        name, layer = _split(key, array)
        if layer is None:
            variables[key] = xr.DataArray(array, dims=_axes(key, array))
        else:
            stacks.setdefault(name, {})[layer] = array
    variables |= _stacked(stacks)
    for name, variable in variables.items():
        variable.attrs |= _attributes(name)
    kept = {name: variable for name, variable in variables.items() if name not in _COORDINATES}
    return xr.Dataset(kept).assign_coords(_coordinates(variables)).assign_attrs(_about(result))


def to_dataframe(result: Result) -> pd.DataFrame:
    """The trajectory as a table: a row for each recorded step, a column for each array over steps.

    Columns are learning_time, loss, its errors, test_loss, and predictions_0, predictions_1, ... by point
    (and output: predictions_0_1).

    Raises:
        ImportError: pandas is not installed (`pip install 'dmft-service[notebooks]'`).
    """
    import pandas as pd

    columns: dict[str, NDArray] = {"learning_time": result.times}
    steps = len(result.times)
    for key, array in sorted(result.arrays.items(), key=lambda item: item[1].ndim):
        if key == "times" or _axes(key, array)[:1] != ("step",):
            continue
        for index in np.ndindex(array.shape[1:]):
            columns["_".join([key, *map(str, index)])] = array[(slice(None), *index)]
    return pd.DataFrame(columns, index=pd.RangeIndex(steps, name="step"))


def _split(key: str, array: NDArray) -> tuple[str, int | None]:
    """The name of an array without its layer, and the layer; None if it belongs to none."""
    found = _LAYERED.fullmatch(key)
    if found is None:
        return key, None
    name = found["name"] + (found["error"] or "")
    if name == "ntk" and array.ndim == 2:
        name = "ntk_of_layer"
    known = name.removesuffix("_standard_error") in _AXES or name.startswith("histogram_")
    return (name, int(found["layer"])) if known else (key, None)


def _axes(name: str, array: NDArray) -> tuple[str, ...]:
    """The names of an array's axes."""
    if name in ("loss", "test_loss") or name.startswith(("loss_", "test_loss_")):
        return ("step",)
    if name.startswith("histogram_bins_"):
        return ("field_time", "edge")
    if name.startswith("histogram_"):
        return ("field_time", "bin")
    known = _AXES.get(name) or _AXES.get(name.removesuffix("_standard_error"), ())
    for axes in known:
        if len(axes) == array.ndim:
            return axes
    factor = re.fullmatch(r"(phi|g)_\d+_factor", name)
    if factor and array.ndim in (3, 4):
        return (*("t", "point", "output")[: array.ndim - 1], f"direction_{name.removesuffix('_factor')}")
    return tuple(f"{name}_axis_{axis}" for axis in range(array.ndim))


def _stacked(stacks: Mapping[str, Mapping[int, NDArray]]) -> dict[str, xr.DataArray]:
    """Arrays of several layers as one; each by itself where they differ in shape or some are missing."""
    import xarray as xr

    there: dict[str, set[int]] = {}
    for name, layers in stacks.items():
        there.setdefault(_layer_axis(name), set()).update(layers)
    stacked = {}
    for name, layers in stacks.items():
        axis, first = _layer_axis(name), next(iter(layers.values()))
        numbers = sorted(layers)
        if set(numbers) == there[axis] and all(array.shape == first.shape for array in layers.values()):
            whole = np.stack([layers[number] for number in numbers])
            stacked[name] = xr.DataArray(whole, dims=(axis, *_axes(name, first)), coords={axis: numbers})
            continue
        for number in numbers:
            stacked[f"{name}_{number}"] = xr.DataArray(layers[number], dims=_axes(name, layers[number]))
    return stacked


def _layer_axis(name: str) -> str:
    """Responses and lazy kernels have other layers than phi, so axes of their own."""
    plain = name.removesuffix("_standard_error")
    return {"a": "layer_ab", "b": "layer_ab", "nngp": "layer_lazy", "ntk_of_layer": "layer_lazy"}.get(
        plain, "layer"
    )


def _coordinates(variables: Mapping[str, xr.DataArray]) -> dict[str, Any]:
    coordinates: dict[str, Any] = {}
    if "times" in variables:
        times = variables["times"].values
        coordinates["step"] = ("step", np.arange(len(times)), {"long_name": "recorded step"})
        coordinates["learning_time"] = ("step", times, {"long_name": "learning time eta t"})
    if "kernel_times" in variables:
        kept = variables["kernel_times"].values
        coordinates["t"] = ("t", kept, {"long_name": "step of the first time"})
        if any("s" in variable.dims for variable in variables.values()):
            coordinates["s"] = ("s", kept, {"long_name": "step of the second time"})
    if "field_times" in variables:
        coordinates["field_time"] = ("field_time", variables["field_times"].values, {"long_name": "step"})
    return coordinates


def _attributes(name: str) -> dict[str, str]:
    plain = name.removesuffix("_standard_error")
    if plain in _WORDS and plain != name:
        return {"long_name": f"standard error of {_WORDS[plain]}"}
    return {"long_name": _WORDS[name]} if name in _WORDS else {}


def _about(result: Result) -> dict[str, Any]:
    """What netCDF takes as attributes: text and numbers."""
    diagnostics = result.diagnostics
    about = {
        "title": f"infinite-width limit of neural-network training, method {diagnostics.method}",
        "complete": int(result.complete),
        "method": diagnostics.method,
        "notes": "\n".join(diagnostics.notes),
        "diagnostics": diagnostics.model_dump_json(),
        "summary": result.summary.model_dump_json(),
    }
    for name in ("request", "citation"):
        if name in result.manifest:
            value = result.manifest[name]
            about[name] = value if isinstance(value, str) else json.dumps(value)
    return about
