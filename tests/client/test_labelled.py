"""Results with named axes: nothing is lost, and files of others read them back."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from dmft_client import Result
from dmft_engine import Problem, solve
from dmft_schema import SolveRequest

BASE: dict[str, Any] = {
    "data": {"inputs": [[1.0, 0.2], [0.1, 1.0], [0.5, -1.0]], "targets": [1.0, -1.0, 1.0]},
    "network": {"depth": 2, "activation": "tanh"},
    "training": {"steps": 4, "learning_rate": 0.2},
    "method": {"name": "dmft", "samples": 512, "replicas": 2, "tolerance": 0.1},
    "outputs": {"kernels": ["phi", "g", "ntk"], "kernel_times": [0, 2, -1]},
}
TESTS = {"test_inputs": [[0.3, 0.3]], "test_targets": [1.0]}
TWO = {"targets": [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]}
CASES: dict[str, dict[str, Any]] = {
    "dmft": {},
    "test points": {"data": {**BASE["data"], **TESTS}},
    "outputs": {"data": {**BASE["data"], **TWO}},
    "responses": {"outputs": {**BASE["outputs"], "responses": True}},
    "responses, outputs": {
        "data": {**BASE["data"], **TWO},
        "outputs": {**BASE["outputs"], "responses": True},
    },
    "fields": {"outputs": {**BASE["outputs"], "field_times": [0, -1], "field_neurons": 5}},
    "fields, outputs": {
        "data": {**BASE["data"], **TWO},
        "outputs": {**BASE["outputs"], "field_times": [0, -1], "field_neurons": 5},
    },
    "no kernels": {"outputs": {"kernels": []}},
    "static_ntk": {"method": {"name": "static_ntk"}},
    "linear": {
        "method": {"name": "linear"},
        "network": {"depth": 2, "activation": "linear"},
        "outputs": {**BASE["outputs"], "responses": True},
    },
    "alternating": {"method": {"name": "alternating", "samples": 256, "max_iterations": 2}},
    "finite_width": {"method": {"name": "finite_width", "width": 16, "ensemble": 3}},
}


def result_of(case: str) -> Result:
    solved = solve(Problem.from_request(SolveRequest.model_validate(BASE | CASES[case])))
    assert solved.error is None
    buffer = io.BytesIO()
    document = json.dumps(json.loads(solved.document().model_dump_json()))
    np.savez(buffer, document=np.frombuffer(document.encode(), np.uint8), **solved.arrays)
    return Result.from_bytes(buffer.getvalue())


@pytest.mark.parametrize("case", CASES)
def test_every_array_is_there_with_axes_of_the_lists(case: str) -> None:
    """Each value once, axes named (none by number), and netCDF gives back the same."""
    result = result_of(case)
    dataset = result.to_xarray()
    sizes = sum(array.size for array in result.arrays.values())
    kept = sum(variable.size for variable in dataset.data_vars.values())
    assert kept + sum(result.arrays[name].size for name in result.arrays if name.endswith("times")) == sizes
    assert not [axis for axis in map(str, dataset.dims) if "_axis_" in axis]
    assert dataset.attrs["method"] == result.diagnostics.method
    np.testing.assert_array_equal(dataset["learning_time"], result.times)
    file = io.BytesIO()
    dataset.to_netcdf(file, engine="h5netcdf")
    with xr.open_dataset(file, engine="h5netcdf") as again:
        xr.testing.assert_identical(again.load(), dataset)


def test_kernels_are_chosen_by_layer_and_step() -> None:
    result = result_of("dmft")
    dataset = result.to_xarray()
    np.testing.assert_array_equal(dataset.phi.sel(layer=2, t=2, s=0), result.phi(2, t=1, s=0))
    np.testing.assert_array_equal(dataset.g.sel(layer=1, t=3, s=3), result.g(1))
    np.testing.assert_array_equal(dataset.ntk.sel(t=2), result.ntk(1))
    assert dataset.phi.attrs["long_name"] == "feature kernel Phi^l(t, s)"


def test_what_this_version_does_not_know_is_kept(tmp_path: Path) -> None:
    result = result_of("dmft")
    result.arrays |= {"new_3_thing": np.ones((2, 5)), "phi_9_factor": np.ones((3, 3, 7))}
    dataset = result.to_xarray()
    assert dataset["new_3_thing"].shape == (2, 5)
    assert dataset["phi_9_factor"].dims == ("t", "point", "direction_phi_9")
    dataset.to_netcdf(tmp_path / "r.nc", engine="h5netcdf")


def test_layers_in_different_forms_stand_by_themselves() -> None:
    result = result_of("dmft")
    factor = np.linalg.cholesky(result.arrays.pop("phi_2").reshape(9, 9) + 1e-6 * np.eye(9))
    result.arrays["phi_2_factor"] = factor.reshape(3, 3, 9)
    dataset = result.to_xarray()
    np.testing.assert_array_equal(
        dataset["phi_1"].transpose("t", "point", "s", "point_s"), result.arrays["phi_1"]
    )
    assert dataset["phi_2_factor"].dims == ("t", "point", "direction_phi_2")
    assert not np.isnan(dataset["g"]).any()


@pytest.mark.parametrize("case", ["test points", "outputs", "static_ntk"])
def test_the_table_of_the_trajectory(case: str) -> None:
    result = result_of(case)
    table = result.to_dataframe()
    assert len(table) == len(result.times)
    np.testing.assert_array_equal(table["loss"], result.loss)
    np.testing.assert_array_equal(table["learning_time"], result.times)
    last = "predictions_2_1" if case == "outputs" else "predictions_2"
    np.testing.assert_array_equal(table[last], result.predictions.reshape(len(table), -1)[:, -1])
    assert ("test_loss" in table) == (case == "test points")
