"""Gradient flow against ODEs solved by scipy, and against gradient descent with small steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from dmft_engine import Problem, solve
from tests.accuracy import Accuracy
from tests.problems import request, run, sphere

RATE, STEPS = 0.2, 30


def flowing(tolerance: float = 1e-4, **training: Any) -> dict[str, Any]:
    given = {"dynamics": "gradient_flow", "learning_rate": RATE, "steps": STEPS, "flow_tolerance": tolerance}
    return given | training


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize(
    "method",
    [{"name": "dmft", "samples": 256, "replicas": 2, "dtype": "float64", "tolerance": 1e-6}],
)
def test_one_linear_layer_is_three_scalars(method: dict[str, Any], decay: float, accuracy: Accuracy) -> None:
    """m = <w h>, p = <h h>, q = <w w>; m' = c (p + q) - 2 lambda m, p' = 2 c m - 2 lambda p, and q alike,
    with c = gamma0 (y - m / gamma0)."""
    gamma0, target = 0.7, 1.3

    def slope(_: float, state: np.ndarray) -> list[float]:
        m, p, q = state
        c = gamma0 * (target - m / gamma0)
        return [
            c * (p + q) - 2 * decay * m,
            2 * c * m - 2 * decay * p,
            2 * c * m - 2 * decay * q,
        ]

    times = RATE * np.arange(STEPS)
    exact = solve_ivp(slope, (0, times[-1]), [0, 1, 1], t_eval=times, rtol=1e-10, atol=1e-12).y
    errors = []
    for tolerance in (1e-3, 1e-5, 1e-7):
        result = run(
            {"kernel": [[1.0]], "targets": [target]},
            network={"depth": 1, "activation": "linear", "gamma0": gamma0},
            training=flowing(tolerance, weight_decay=decay),
            method=method,
        ).arrays
        errors.append(np.abs(result["predictions"][:, 0] - exact[0] / gamma0).max())
        accuracy(
            f"`dmft`, gradient flow, linear L = 1, weight decay {decay}: predictions",
            "three ODEs by scipy (error bar: training.flow_tolerance)",
            errors[-1],
            tolerance,
        )
        # Local errors of each step, none of which is above the tolerance.
        assert errors[-1] < 10 * tolerance
    assert errors[2] < errors[1] < errors[0]


def test_static_ntk_is_an_exponential(accuracy: Accuracy) -> None:
    data = sphere(5, 8)
    result = run(
        data,
        network={"depth": 2, "activation": "erf"},
        training=flowing(1e-8),
        method={"name": "static_ntk"},
    ).arrays
    values, vectors = np.linalg.eigh(result["ntk"][0])
    along = vectors.T @ np.array(data["targets"])
    times = RATE * np.arange(STEPS)
    exact = (1 - np.exp(-times[:, None] * values / 5)) * along @ vectors.T
    accuracy("`static_ntk`, gradient flow: predictions", "exponentials", result["predictions"] - exact)
    np.testing.assert_allclose(result["predictions"], exact, atol=1e-6)


@pytest.mark.parametrize(
    "method",
    [
        {"name": "dmft", "samples": 512, "replicas": 2, "tolerance": 1e-6, "dtype": "float64"},
        {"name": "finite_width", "width": 60, "ensemble": 2, "dtype": "float64"},
        {"name": "static_ntk"},
        {
            "name": "gradient_independence",
            "readout": "exact",
            "samples": 512,
            "replicas": 2,
            "tolerance": 1e-6,
            "dtype": "float64",
        },
    ],
    ids=lambda method: method["name"],
)
def test_gradient_descent_meets_it_at_first_order(method: dict[str, Any]) -> None:
    """Half the learning rate, half the difference."""
    # Linear where samples are drawn: there they make no noise.
    activation = "linear" if "samples" in method else "tanh"
    network = {"depth": 2, "activation": activation, "gamma0": 1.0}
    shared: dict[str, Any] = {"network": network, "method": method}
    data = sphere(4, 8)
    flow = run(data, **shared, training=flowing(1e-5)).arrays["loss"]
    gaps = []
    for refinement in (4, 8):
        training = {"learning_rate": RATE / refinement, "steps": (STEPS - 1) * refinement + 1}
        gaps.append(np.abs(run(data, **shared, training=training).arrays["loss"][::refinement] - flow).max())
    assert 1.7 < gaps[0] / gaps[1] < 2.4


def test_records_far_apart_are_reached_by_many_steps() -> None:
    """Learning rates at which gradient descent diverges only space the records of the flow."""
    shared: dict[str, Any] = {
        "network": {"depth": 2, "activation": "tanh"},
        "method": {"name": "finite_width", "width": 40, "ensemble": 2, "dtype": "float64"},
    }
    data = sphere(4, 8)
    close = run(data, **shared, training=flowing(1e-6, learning_rate=0.5, steps=41)).arrays
    far = run(data, **shared, training=flowing(1e-6, learning_rate=10.0, steps=3)).arrays
    np.testing.assert_allclose(far["loss"], close["loss"][::20], atol=1e-5)
    assert far["times"].tolist() == [0.0, 10.0, 20.0]


def test_steps_that_must_be_too_short_end_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmft_engine.training.gradient_flow.SMALLEST_STEP", 0.5)
    problem = request(
        sphere(4, 8),
        training=flowing(1e-9, steps=5),
        method={"name": "finite_width", "width": 50, "ensemble": 2, "dtype": "float64"},
    )
    result = solve(Problem.from_request(problem))
    assert result.error is not None
    assert (result.error.code, result.error.step) == ("step_too_small", 0)
    assert "training.flow_tolerance (now 1e-09)" in result.error.advice
    assert len(result.arrays["loss"]) == 1
