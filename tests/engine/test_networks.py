"""Networks of blocks: the limit and finite networks against dense networks written without this project."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.accuracy import Accuracy
from tests.problems import DATA, run

CASES: dict[str, Any] = json.loads((DATA / "networks.json").read_text())["cases"]
"""Inputs, settings, and the loss of ensembles extrapolated in 1/N with its standard error, at every step."""

LIMIT = {"name": "dmft", "samples": 8192, "replicas": 4, "tolerance": 0.05}
FINITE = {"name": "finite_width", "width": 256, "ensemble": 6}
SLOW = pytest.mark.slow


def sections(case: str, method: dict[str, Any]) -> dict[str, Any]:
    kept = CASES[case]
    return {
        "data": {"inputs": kept["inputs"], "targets": kept["targets"]},
        "network": {"architecture": "composed", "layers": kept["layers"]},
        "training": {"learning_rate": kept["learning_rate"], "steps": kept["steps"]},
        "method": method,
        "outputs": {"kernels": ["phi"], "kernel_times": [0, -1]},
    }


@pytest.mark.parametrize("method", [LIMIT, FINITE], ids=lambda method: method["name"])
@pytest.mark.parametrize("case", [pytest.param(case, marks=[] if "norm" in case else SLOW) for case in CASES])
def test_loss_of_independent_networks_at_all_times(
    case: str, method: dict[str, Any], accuracy: Accuracy
) -> None:
    """Within four joint standard errors; what truncation leaves out is far below them."""
    if "cnn" in case and method is LIMIT:  # Half the work; the judges' errors are the larger ones.
        method = LIMIT | {"samples": 4096, "replicas": 2}
    arrays = run(**sections(case, method)).arrays
    expected, error = (np.array(CASES[case][name]) for name in ("loss", "loss_standard_error"))
    joint = np.hypot(arrays["loss_standard_error"], error)
    error_of_loss = arrays["loss"] - expected
    accuracy(
        f"`{method['name']}`, {case}: loss",
        "dense networks in plain autograd, extrapolated in 1/N",
        error_of_loss[1:],
        joint[1:],
    )
    assert (np.abs(error_of_loss)[1:] < 4 * joint[1:]).all()
