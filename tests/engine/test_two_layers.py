"""Networks with one hidden layer: the paper's two-layer equations, integrated over neurons directly.

At L = 1 the fields of a neuron depend on others through the errors alone, so a quadrature over its initial
u ~ N(0, K^x) and w ~ N(0, 1) follows the whole population, without samples, kernels or bases.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.accuracy import Accuracy
from tests.problems import run

Function = Callable[[np.ndarray], np.ndarray]


def gauss(nodes: int, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes [n, d] and weights [n] of averages over d standard normals."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    return _product(x, w / w.sum(), dimensions)


def grid(nodes: int, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """The same by midpoints, for integrands with kinks."""
    x = (np.arange(nodes) + 0.5) / nodes * 15 - 7.5
    w = np.exp(-(x**2) / 2)
    return _product(x, w / w.sum(), dimensions)


def _product(x: np.ndarray, w: np.ndarray, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    axes = np.meshgrid(*[x] * dimensions, indexing="ij")
    weights = np.meshgrid(*[w] * dimensions, indexing="ij")
    return np.stack([axis.ravel() for axis in axes], 1), np.prod([v.ravel() for v in weights], axis=0)


def two_layers(
    kernel: np.ndarray,
    targets: np.ndarray,
    phi: Function,
    slope: Function,
    training: dict[str, Any],
    gamma0: float,
    rule: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """f [T, P]: h += e K^x Delta g - eta lambda h, w += e Delta phi(h) - eta lambda w, e = gamma0 eta / P."""
    nodes, weights = rule
    points = len(kernel)
    h = nodes[:, :points] @ np.linalg.cholesky(kernel).T
    w = nodes[:, points].copy()
    rate, decay = training["learning_rate"], training.get("weight_decay", 0.0)
    predictions = []
    for _ in range(training["steps"]):
        f = weights @ (w[:, None] * phi(h)) / gamma0
        predictions.append(f)
        errors = gamma0 * rate / points * (targets - f)
        change = (w[:, None] * slope(h) * errors) @ kernel
        w = (1 - rate * decay) * w + phi(h) @ errors
        h = (1 - rate * decay) * h + change
    return np.array(predictions)


def relu(h: np.ndarray) -> np.ndarray:
    return np.maximum(h, 0)


def step(h: np.ndarray) -> np.ndarray:
    return (h > 0).astype(float)


CASES: dict[str, dict[str, Any]] = {
    "tanh": {
        "activation": "tanh",
        "functions": (np.tanh, lambda h: 1 - np.tanh(h) ** 2),
        "kernel": [[1.0, 0.3], [0.3, 1.2]],
        "targets": [1.0, -0.5],
        "rule": (gauss, 40),
    },
    "tanh, large learning rate": {
        "activation": "tanh",
        "functions": (np.tanh, lambda h: 1 - np.tanh(h) ** 2),
        "kernel": [[1.0, 0.3], [0.3, 1.2]],
        "targets": [1.0, -0.5],
        "rule": (gauss, 72),
        "training": {"learning_rate": 2.5},
    },
    "relu with weight decay": {
        "activation": "relu",
        "functions": (relu, step),
        "kernel": [[1.0]],
        "targets": [1.0],
        "rule": (grid, 1500),
        "training": {"weight_decay": 0.3},
    },
    "relu, two points, weight decay": {
        "activation": "relu",
        "functions": (relu, step),
        "kernel": [[1.0, -0.2], [-0.2, 1.0]],
        "targets": [1.0, -1.0],
        "rule": (grid, 150),
        "training": {"weight_decay": 0.2},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_dmft_meets_the_two_layer_equations(name: str, accuracy: Accuracy) -> None:
    case = CASES[name]
    training = {"learning_rate": 0.3, "steps": 30} | case.get("training", {})
    kernel, targets, gamma0 = np.array(case["kernel"]), np.array(case["targets"]), 1.5
    make, nodes = case["rule"]
    exact, coarse = (
        two_layers(kernel, targets, *case["functions"], training, gamma0, make(count, len(kernel) + 1))
        for count in (nodes, nodes * 3 // 4)
    )
    quadrature_error = np.abs(exact - coarse).max()
    result = run(
        {"kernel": case["kernel"], "targets": case["targets"]},
        network={"depth": 1, "activation": case["activation"], "gamma0": gamma0},
        training=training,
        method={"name": "dmft", "samples": 65536, "replicas": 8, "tolerance": 1e-3},
    ).arrays
    error = result["predictions_standard_error"]
    quantile = stats.t.ppf(1 - 0.001 / (2 * error.size), 7)
    allowed = quantile * error + quadrature_error + 1e-6
    accuracy(
        f"`dmft`, L = 1, {name}: predictions",
        "the two-layer equations integrated over neurons",
        result["predictions"] - exact,
        error + quadrature_error + 1e-6,
    )
    assert (np.abs(result["predictions"] - exact) <= allowed).all()
    assert allowed.max() < 5e-3


def test_relu_with_weight_decay_ends_at_its_fixed_point(accuracy: Accuracy) -> None:
    """P = 1, K^x = 1: h = (gamma0 / lambda) Delta z and z = (gamma0 / lambda) Delta h for active neurons, so
    Delta = lambda / gamma0 whatever the samples."""
    for gamma0, decay in ((1.0, 0.3), (2.0, 1.0)):
        result = run(
            {"kernel": [[1.0]], "targets": [1.0]},
            network={"depth": 1, "activation": "relu", "gamma0": gamma0},
            training={"learning_rate": 0.2, "steps": 400, "weight_decay": decay},
            method={"name": "dmft", "samples": 1024},
            outputs={"kernel_times": [-1]},
        ).arrays
        accuracy(
            f"`dmft`, L = 1, relu, gamma0 {gamma0}, weight decay {decay}: f at the end",
            "1 - lambda / gamma0",
            result["predictions"][-1, 0] - (1 - decay / gamma0),
        )
        assert result["predictions"][-1, 0] == pytest.approx(1 - decay / gamma0, abs=1e-4)


def test_relu_on_orthogonal_points_ends_at_its_fixed_point(accuracy: Accuracy) -> None:
    """K^x = 1 and y = +-1: each sign has its own neurons, and |Delta| = P lambda / gamma0 for both."""
    result = run(
        {"kernel": [[1.0, 0.0], [0.0, 1.0]], "targets": [1.0, -1.0]},
        network={"depth": 1, "activation": "relu", "gamma0": 2.0},
        training={"learning_rate": 0.3, "steps": 600, "weight_decay": 0.4},
        method={"name": "dmft", "samples": 1024},
        outputs={"kernel_times": [-1]},
    ).arrays
    accuracy(
        "`dmft`, L = 1, relu, orthogonal points, weight decay: f at the end",
        "y - P lambda / gamma0",
        result["predictions"][-1] - [0.6, -0.6],
    )
    np.testing.assert_allclose(result["predictions"][-1], [0.6, -0.6], atol=1e-3)


def test_below_the_threshold_everything_decays() -> None:
    """lambda > gamma0 |y|: learning cannot outweigh decay, and the network forgets all."""
    result = run(
        {"kernel": [[1.0]], "targets": [1.0]},
        network={"depth": 1, "activation": "relu", "gamma0": 0.5},
        training={"learning_rate": 0.2, "steps": 400, "weight_decay": 1.0},
        method={"name": "dmft", "samples": 512},
    ).arrays
    assert abs(result["predictions"][-1, 0]) < 1e-6
    assert result["phi_1"][-1, 0, -1, 0] < 1e-6


@pytest.mark.slow
def test_at_a_large_learning_rate_gradient_flow_is_another_theory() -> None:
    """Finite steps at gamma0 = 1 are the Tensor Programs recursion, not the flow's discretisation error."""
    shared: dict[str, Any] = {
        "network": {"depth": 1, "activation": "tanh", "gamma0": 1.0},
        "method": {"name": "dmft", "samples": 8192, "replicas": 8},
    }
    data = {"kernel": [[1.0, 0.3], [0.3, 1.2]], "targets": [1.0, -0.5]}
    descent, flow = (
        run(data, **shared, training={"learning_rate": 2.5, "steps": 8, "dynamics": dynamics}).arrays
        for dynamics in ("gradient_descent", "gradient_flow")
    )
    error = np.hypot(descent["loss_standard_error"], flow["loss_standard_error"])
    assert (np.abs(descent["loss"] - flow["loss"])[1:4] > 20 * error[1:4]).all()
