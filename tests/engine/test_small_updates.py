"""Small updates, large and small kernels, both precisions: answers are right within their errors, or refused.

The judges share no code with what they judge but the drawing of weights: dense networks written out in
float64 numpy, the exact algebra of deep linear networks, and the lazy limit of erf networks in closed form.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dmft_engine import Problem, Result, solve
from dmft_engine.weights.initialisation import dense_weights
from dmft_schema import JobStatus
from tests.accuracy import Accuracy
from tests.problems import request, run

STEPS = 10
T_VALUE = 22.0
"""Of three degrees of freedom, for 1 in 5,000: error bars of four replicas are themselves uncertain."""

SCALES = st.sampled_from([1e-4, 1e-2, 1.0, 1e2, 1e4])
GAMMAS = st.sampled_from([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 3.0, 10.0])
DTYPES = st.sampled_from(["float32", "float64"])
SIZES = st.sampled_from([1, 2, 3, 7, 20, 60])
SEEDS = st.integers(0, 2**32 - 1)
PROPERTY = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def inputs_of(scale: float, points: int, seed: int) -> NDArray:
    """[P, D] points of random norms about the root of the scale."""
    generator = np.random.default_rng(seed)
    return generator.normal(size=(points, points + 3)) * scale**0.5


def sections(
    inputs: NDArray, ntk_scale: float, gamma0: float, activation: str, depth: int, seed: int, rate: float
) -> dict[str, Any]:
    """A problem trained at `rate` of the largest stable learning rate; its NTK is about `ntk_scale` K^x."""
    kernel = inputs @ inputs.T / inputs.shape[1]
    largest = ntk_scale * np.linalg.eigvalsh(kernel)[-1]
    targets = np.random.default_rng(seed + 1).choice([-1.0, 1.0], size=len(inputs))
    return {
        "data": {"inputs": inputs.tolist(), "targets": targets.tolist()},
        "network": {"depth": depth, "activation": activation, "gamma0": gamma0},
        "training": {
            "steps": STEPS,
            "learning_rate": float(min(rate * 2 * len(inputs) / largest, 1e4)),
        },
        "outputs": {"kernels": []},
    }


def solved(given: dict[str, Any], method: dict[str, Any]) -> Result:
    return solve(Problem.from_request(request(**given, method=method)))


def dense_loss(given: dict[str, Any], method: dict[str, Any]) -> NDArray:
    """[T] of the same networks in plain numpy, float64."""
    problem = Problem.from_request(request(**given, method=method))
    width, members, network = method["width"], method["ensemble"], problem.network
    drawn = dense_weights(problem, width, range(members), 0, torch.float64, "cpu")
    phi, slope = {
        "linear": (lambda h: h, np.ones_like),
        "tanh": (np.tanh, lambda h: 1 - np.tanh(h) ** 2),
        "relu": (lambda h: np.maximum(h, 0), lambda h: (h > 0).astype(float)),
    }[network.activation]
    y, rate = problem.data.targets[:, 0], problem.training.learning_rate / problem.data.points
    losses = []
    for member in range(members):
        x = drawn.input._factor[member].numpy()
        first = drawn.input._weights.value[member].numpy().copy()
        hidden = [matrix._scaled.value[member].numpy().copy() for matrix in drawn.hidden]  # type: ignore[attr-defined]
        readout = drawn.readout._weights.value[member, 0].numpy().copy()
        at_start, curve = None, []
        for _ in range(STEPS):
            h = [x @ first]
            for matrix in hidden:
                h.append(phi(h[-1]) @ matrix.T)
            output = phi(h[-1]) @ readout
            at_start = output if at_start is None else at_start
            error = y - (output - at_start) / (network.gamma0 * width)
            curve.append(np.mean(error**2))
            weighted = network.gamma0 * rate * error
            g = [slope(h[-1]) * readout]
            for matrix, below in zip(reversed(hidden), reversed(h[:-1]), strict=True):
                g.insert(0, slope(below) * (g[0] @ matrix))
            readout += weighted @ phi(h[-1])
            for layer, matrix in enumerate(hidden):
                matrix += (weighted[:, None] * g[layer + 1]).T @ phi(h[layer]) / width
            first += x.T @ (weighted[:, None] * g[0])
        losses.append(curve)
    return np.mean(losses, axis=0)


@PROPERTY
@given(
    SCALES,
    SIZES,
    SEEDS,
    GAMMAS,
    DTYPES,
    st.sampled_from(["linear", "tanh", "relu"]),
    st.sampled_from([1, 2, 3]),
)
def test_dense_networks_keep_to_their_rounding(
    scale: float, points: int, seed: int, gamma0: float, dtype: str, activation: str, depth: int
) -> None:
    inputs = inputs_of(scale, points, seed)
    # tanh saturates: its NTK stays below that of the linear network.
    asked = sections(inputs, 1.0 + depth, gamma0, activation, depth, seed, 0.2)
    method = {"name": "finite_width", "width": 24, "ensemble": 2, "dtype": dtype}
    result = solved(asked, method)
    if result.error is not None:
        assert result.error.code == "diverged"
        return
    expected = dense_loss(asked, method)
    error = np.abs(result.arrays["loss"] - expected)
    assert (error <= result.arrays["loss_rounding_error"] + 1e-14).all(), (
        error,
        result.arrays["loss_rounding_error"],
    )
    if expected.max() < 1.5:  # Of a loss that explodes, rounding leaves nothing.
        assert result.arrays["loss_rounding_error"].max() < 1e-2


@PROPERTY
@given(
    SCALES,
    SIZES,
    SEEDS,
    GAMMAS,
    DTYPES,
    st.sampled_from(["dmft", "gradient_independence", "alternating"]),
    st.sampled_from([1, 2]),
)
def test_the_limit_of_linear_networks_is_that_of_the_algebra(
    scale: float, points: int, seed: int, gamma0: float, dtype: str, method: str, depth: int
) -> None:
    inputs = inputs_of(scale, points, seed)
    asked = sections(inputs, 1.0 + depth, gamma0, "linear", depth, seed, 0.2)
    options: dict[str, Any] = {"name": method, "dtype": dtype}
    options |= {"samples": 1024} if method == "alternating" else {"readout": "exact"}
    exact = {"name": "linear", "readout": "ntk" if method == "alternating" else "exact"}
    judge = solved(asked, exact)
    result = solved(asked, options)
    if judge.error is not None or result.error is not None:
        # Near the edge of stability one may go over it before the other.
        codes = {r.error.code for r in (judge, result) if r.error is not None}
        assert codes <= {"diverged", "too_few_samples"}
        return
    if method == "gradient_independence":
        judge = solved(asked, {"name": "gradient_independence", "readout": "exact"})
    arrays = result.arrays
    error = np.abs(arrays["loss"] - judge.arrays["loss"])
    claimed = (
        T_VALUE * arrays.get("loss_standard_error", 0.0)
        + arrays.get("loss_truncation_error", 0.0)
        + arrays.get("loss_rounding_error", 0.0)
        + 1e-9
    )
    if method == "alternating":
        if not result.diagnostics.converged:
            return  # It says so itself.
        claimed += arrays["iteration_loss_change"][-1] * arrays["loss"][0]
    assert (error <= claimed).all(), (error, claimed)


@PROPERTY
@given(SCALES, SIZES, SEEDS, GAMMAS, DTYPES, st.sampled_from(["linear", "dmft", "gradient_independence"]))
def test_one_linear_layer_of_any_strength(
    scale: float, points: int, seed: int, gamma0: float, dtype: str, method: str
) -> None:
    """Its neurons' weights stay combinations of D + 1 Gaussian vectors: descent on those is exact."""
    inputs = inputs_of(scale, points, seed)
    asked = sections(inputs, 2.0, gamma0, "linear", 1, seed, 0.2)
    x, y = inputs / inputs.shape[1] ** 0.5, np.array(asked["data"]["targets"])
    rate = gamma0 * asked["training"]["learning_rate"] / points
    first, readout = np.eye(x.shape[1], x.shape[1] + 1), np.eye(x.shape[1] + 1)[-1]
    expected = []
    for _ in range(STEPS):
        error = y - x @ first @ readout / gamma0
        expected.append(np.mean(error**2))
        if expected[-1] > 1e3 * expected[0]:
            return  # It diverges, sooner or later.
        first, readout = first + rate * np.outer(x.T @ error, readout), readout + rate * error @ x @ first
    options = {} if method == "linear" else {"dtype": dtype}
    result = solved(asked, {"name": method, "readout": "exact"} | options)
    assert result.error is None, result.error
    arrays = result.arrays
    claimed = (
        T_VALUE * arrays.get("loss_standard_error", 0.0)
        + arrays.get("loss_truncation_error", 0.0)
        + arrays.get("loss_rounding_error", 0.0)
        + 1e-9 * np.array(expected).clip(1.0)
    )
    error = np.abs(arrays["loss"] - expected)
    assert (error <= claimed).all(), (error, claimed)


def erf_ntk(kernel: NDArray, depth: int) -> NDArray:
    """NTK at t = 0 of an erf network by its closed forms (Williams 1997)."""
    covariance, ntk = kernel, kernel
    for _ in range(depth):
        variance = 1 + 2 * covariance.diagonal()
        norm = np.sqrt(variance[:, None] * variance[None, :])
        ratio = 2 * covariance / norm
        phi = 2 / np.pi * np.arcsin(ratio)
        slope = 4 / np.pi / norm / np.sqrt(1 - ratio**2)
        covariance, ntk = phi, phi + ntk * slope
    return ntk


@PROPERTY
@given(
    SCALES,
    SIZES,
    SEEDS,
    st.sampled_from([1e-6, 1e-5, 1e-4]),
    DTYPES,
    st.sampled_from(["dmft", "gradient_independence", "alternating", "static_ntk"]),
)
def test_little_feature_learning_is_the_lazy_limit(
    scale: float, points: int, seed: int, gamma0: float, dtype: str, method: str
) -> None:
    inputs, depth = inputs_of(scale, points, seed), 2
    kernel = inputs @ inputs.T / inputs.shape[1]
    ntk = erf_ntk(kernel, depth)
    asked = sections(inputs, 1.0, gamma0, "erf", depth, seed, 0.2)
    rate = min(0.2 * 2 * points / float(np.linalg.eigvalsh(ntk)[-1]), 1e4)
    asked["training"]["learning_rate"] = rate
    y, f, expected = np.array(asked["data"]["targets"]), np.zeros(points), []
    for _ in range(STEPS):
        expected.append(np.mean((f - y) ** 2))
        f = f + rate / points * ntk @ (y - f)
    options = {"dmft": {}, "alternating": {"samples": 1024}}
    result = solved(asked, {"name": method, "dtype": dtype} | options.get(method, {}))
    assert result.error is None, result.error
    arrays = result.arrays
    claimed = (
        T_VALUE * arrays.get("loss_standard_error", 0.0)
        + arrays.get("loss_truncation_error", 0.0)
        + arrays.get("loss_rounding_error", 0.0)
        + 1e-7
    )
    error = np.abs(arrays["loss"] - expected)
    assert (error <= claimed).all(), (error, claimed)


@pytest.mark.parametrize("method", ["dmft", "gradient_independence", "finite_width", "alternating"])
@pytest.mark.parametrize(
    ("scale", "gamma0"), [(1.0, 1e-6), (1e12, 1.0)], ids=["gamma0 = 1e-6", "a kernel of 1e12"]
)
def test_the_reported_cases(method: str, scale: float, gamma0: float, accuracy: Accuracy) -> None:
    """Twelve steps of a linear network of two layers end at .06006 and nowhere else."""
    given: dict[str, Any] = {
        "data": {"kernel": [[scale, 0.2 * scale], [0.2 * scale, scale]], "targets": [1.0, -1.0]},
        "network": {"depth": 2, "activation": "linear", "gamma0": gamma0},
        "training": {"steps": 12, "learning_rate": 0.1 / scale},
    }
    options = {"width": 1000, "ensemble": 8} if method == "finite_width" else {}
    result = run(**given, method={"name": method} | options)
    error = result.arrays["loss"][-1] - 0.06006
    bar = T_VALUE * float(result.arrays.get("loss_standard_error", [0.0])[-1]) + 1e-5
    accuracy(f"`{method}`, small updates: loss", "the algebra", error, bar)
    assert abs(error) <= bar
    if method in ("dmft", "finite_width"):
        assert result.diagnostics.computed_in == "float64"
        assert any("computed in float64" in note for note in result.diagnostics.notes)
        assert result.arrays["loss_rounding_error"].max() < 1e-6


def test_less_than_float64_resolves_is_refused() -> None:
    given = {
        "data": {"kernel": [[1.0, 0.2], [0.2, 1.0]], "targets": [1.0, -1.0]},
        "network": {"depth": 2, "gamma0": 1e-14},
    }
    result = solved(given, {"name": "dmft"})
    assert result.status is JobStatus.FAILED
    assert result.error is not None
    assert result.error.code == "too_little_precision"
    assert "gamma0 = 0" in result.error.advice


def test_large_data_is_told_to_be_scaled_down() -> None:
    """At gamma0 = 1 the lazy limit is another answer, not a better one."""
    given = {
        "data": {"inputs": [[255.0] * 10, [3.0] * 10], "targets": [1.0, -1.0]},
        "network": {"depth": 3, "activation": "quadratic", "gamma0": 1.0},
    }
    error = solved(given, {"name": "finite_width", "width": 64}).error
    assert error is not None
    assert error.code == "too_little_precision"
    assert "scale the inputs" in error.advice
    assert "lazy" not in error.advice
