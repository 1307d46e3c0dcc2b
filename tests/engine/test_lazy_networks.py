"""static_ntk of networks of blocks as requests ask for it; test_block_kernels.py judges the kernels."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from dmft_schema.closing import KernelEntries
from dmft_schema.memory import Demand, memory_bytes
from tests.accuracy import Accuracy
from tests.engine.test_memory import PEAK
from tests.problems import request, run

TANH = {"block": "activation", "name": "tanh"}
RELU = {"block": "activation", "name": "relu"}
ERF = {"block": "activation", "name": "erf"}
DENSE = {"block": "dense"}
CONVOLUTION = {"block": "convolution"}
ATTENTION = {"block": "attention"}
RMS = {"block": "normalise", "kind": "rms"}
MEAN = {"block": "readout"}
FLATTEN = {"block": "readout", "positions": "flatten"}
LAST = {"block": "readout", "positions": "last"}

IMAGES = np.random.default_rng(4).normal(size=(5, 4, 4, 1))
SEQUENCES = np.random.default_rng(5).normal(size=(5, 3, 3))
TARGETS = [1.0, -1.0, 0.5]
STATIC = {"name": "static_ntk"}

NETWORKS: dict[str, tuple[np.ndarray, list[dict[str, Any]]]] = {
    "convolutions, pool, mean": (
        IMAGES,
        [CONVOLUTION | {"bias_scale": 0.5}, ERF, {"block": "pool"}, CONVOLUTION | {"size": 2}, TANH, MEAN],
    ),
    "valid, stride, flatten": (
        IMAGES,
        [CONVOLUTION | {"padding": "valid", "size": 2, "stride": 2}, RELU, CONVOLUTION, RELU, FLATTEN],
    ),
    "norms and branches": (
        SEQUENCES,
        [DENSE, {"block": "residual", "branch": [RMS, DENSE, ERF, DENSE], "scale": 0.6}, RMS, TANH, FLATTEN],
    ),
    "trained gains": (SEQUENCES, [DENSE, TANH, RMS | {"learned": True}, DENSE, ERF, MEAN]),
    "recurrence": (SEQUENCES, [{"block": "recurrence", "weight_scale": 1.3}, TANH, LAST]),
    "attention": (
        SEQUENCES,
        [DENSE, {"block": "residual", "branch": [RMS, ATTENTION], "scale": 0.8}, TANH, MEAN],
    ),
}


def sections(name: str, **changes: Any) -> dict[str, Any]:
    inputs, layers = NETWORKS[name]
    return {
        "data": {"inputs": inputs[:3], "targets": TARGETS, "test_inputs": inputs[3:]},
        "network": {"architecture": "composed", "layers": layers},
        "training": {"steps": 10, "learning_rate": 0.3},
        "method": STATIC,
    } | changes


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_vanishing_gamma0_of_the_limit_meets_it(name: str, accuracy: Accuracy) -> None:
    """Loss, test predictions and kernels by layer at gamma0 = 0.01: corrections are of order 1e-4."""
    lazy = run(**sections(name))
    network = sections(name)["network"] | {"gamma0": 0.01}
    method = {"name": "dmft", "samples": 16384, "replicas": 8, "dtype": "float64", "tolerance": 0.01}
    rich = run(**sections(name, network=network, method=method, outputs={"kernel_times": [0]}))
    sampled = lazy.diagnostics.kernel_error or 0.0
    for quantity in ("loss", "test_predictions"):
        found, expected = lazy.arrays[quantity], rich.arrays[quantity]
        error = rich.arrays[f"{quantity}_standard_error"]
        truncated = rich.arrays["loss_truncation_error"].max()
        allowance = np.hypot(error, sampled * np.abs(expected).max() / 3) + truncated
        accuracy(f"`static_ntk`, {name}: {quantity}", "`dmft` at gamma0 = 0.01", found - expected, allowance)
        # t with 7 degrees of freedom, of some tens of numbers.
        assert (np.abs(found - expected) <= 5.4 * allowance + 2e-4).all()
    for kernel in [key for key in lazy.arrays if re.fullmatch(r"(phi|g)_\d", key)]:
        found, expected = (r.arrays[kernel][0, :, 0] for r in (lazy, rich))
        root = np.sqrt(expected.diagonal())
        off = np.abs(found - expected) / np.outer(root, root)
        assert off.max() < 0.05 + sampled, kernel


@pytest.mark.parametrize(
    "training",
    [
        {},
        {"momentum": 0.5, "batch_size": 2, "schedule": "cosine"},
        {"loss": "logistic"},
        {"dynamics": "gradient_flow", "flow_tolerance": 1e-8},
    ],
    ids=["plain", "momentum and batches", "logistic", "flow"],
)
def test_predictions_are_those_of_its_kernel_on_vectors(training: dict[str, Any]) -> None:
    """A linear network on vectors whose kernel is this one's NTK, less K^x, trains in the same way."""
    signs = {"inputs": IMAGES[:3], "targets": [1.0, -1.0, 1.0], "test_inputs": IMAGES[3:]}
    changes = {"data": signs, "training": {"steps": 10, "learning_rate": 0.3} | training}
    here = run(**sections("valid, stride, flatten", **changes)).arrays
    # One hidden layer, linear: its NTK is twice the kernel of its inputs.
    kernel = here["ntk_3"] / 2
    on_vectors = {
        "kernel": kernel[:3, :3],
        "cross_kernel": kernel[3:, :3],
        "test_kernel": kernel[3:, 3:],
        "targets": signs["targets"],
    }
    network = {"depth": 1, "activation": "linear"}
    there = run(on_vectors, network=network, training=changes["training"], method=STATIC).arrays
    for quantity in ("loss", "predictions", "test_predictions"):
        np.testing.assert_allclose(here[quantity], there[quantity], rtol=1e-9, atol=1e-12)


def test_several_outputs_have_kernels_of_their_own() -> None:
    data = {"inputs": SEQUENCES, "targets": np.eye(2)[[0, 1, 0, 1, 1]]}
    arrays = run(**sections("recurrence", data=data)).arrays
    assert arrays["ntk"].shape == (10, 5, 2, 5, 2)
    assert arrays["predictions"].shape == (10, 5, 2)
    np.testing.assert_array_equal(arrays["ntk"][0, :, 0, :, 1], 0)
    alone = run(**sections("recurrence", data=data | {"targets": data["targets"][:, 0]})).arrays
    np.testing.assert_allclose(arrays["predictions"][..., 0], alone["predictions"], atol=1e-13)


def test_sampled_kernels_are_the_same_every_time_and_say_so() -> None:
    first, second = (run(**sections("attention")) for _ in range(2))
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, second.arrays[name])
    assert first.diagnostics.kernel_error is not None
    assert 1e-3 < first.diagnostics.kernel_error < 0.1
    assert any("sampled heads" in note for note in first.diagnostics.notes)


@pytest.mark.parametrize("method", [STATIC, {"name": "dmft"}, {"name": "gradient_independence"}])
def test_what_does_not_close_is_refused_at_its_place(method: dict[str, Any]) -> None:
    """By static_ntk, and by what becomes it at gamma0 = 0; but taken elsewhere."""
    inner = {"block": "residual", "branch": [DENSE, TANH, RELU]}
    asked = sections("recurrence", method=method)
    for gamma0 in (0.0, 1.0):
        asked["network"] = {"architecture": "composed", "layers": [DENSE, inner, MEAN], "gamma0": gamma0}
        if gamma0 and method is not STATIC:
            request(**asked)
            continue
        with pytest.raises(ValidationError, match="no dense or convolution since") as refused:
            request(**asked)
        (error,) = refused.value.errors()
        assert error["loc"] == ("network", "layers", 1, "branch", 2)


@pytest.mark.parametrize(
    ("shape", "network"),
    [
        ((32, 32, 3), {"architecture": "convolutional", "activation": "relu"}),
        ((16, 16, 1), {"architecture": "convolutional", "activation": "tanh", "pool": 2}),
        ((12, 2), {"architecture": "transformer"}),
    ],
)
def test_more_than_can_be_done_is_refused_with_what_can(
    shape: tuple[int, ...], network: dict[str, Any]
) -> None:
    def ask(points: int) -> None:
        data = {"inputs": np.ones((points, *shape)), "targets": np.ones(points)}
        request(data, network=network, method=STATIC, training={"steps": 2})

    with pytest.raises(ValidationError) as refused:
        ask(600)
    (error,) = refused.value.errors()
    assert error["loc"] == ("network",)
    most = int(re.search(r"at most (\d+) points", error["msg"])[1])  # type: ignore[index]
    ask(most)
    with pytest.raises(ValidationError):
        ask(most + 1)


def test_equal_positions_are_enough_for_flatten() -> None:
    network = request(
        **sections(
            "valid, stride, flatten", network={"architecture": "convolutional", "positions": "flatten"}
        )
    ).network
    data = request(**sections("valid, stride, flatten")).data
    entries = KernelEntries.of(network.blocks, network.check_shape(data.sizes.shape))  # type: ignore[union-attr]
    assert entries.of_pair == 16


@pytest.mark.slow
@pytest.mark.parametrize(
    ("points", "network"),
    [
        (20, {"architecture": "convolutional", "activation": "relu"}),
        (100, {"architecture": "convolutional", "activation": "relu", "positions": "flatten"}),
        (3, {"architecture": "composed", "layers": [CONVOLUTION, ATTENTION, RELU, MEAN]}),
    ],
)
def test_estimates_bound_what_a_process_takes(points: int, network: dict[str, Any]) -> None:
    inputs = np.random.default_rng(0).normal(size=(points, 8, 8, 1))
    given = request(
        {"inputs": inputs, "targets": np.ones(points)},
        network=network,
        training={"steps": 5, "learning_rate": 0.01},
        method=STATIC,
    )
    solved = subprocess.run(
        [sys.executable, "-c", PEAK],
        input=given.model_dump_json(),
        capture_output=True,
        text=True,
        check=True,
    )
    peak = json.loads(solved.stdout)
    assert peak <= memory_bytes(Demand.of(given, given.data.sizes)) <= 3 * peak  # type: ignore[union-attr]
