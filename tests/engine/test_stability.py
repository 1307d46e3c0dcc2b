"""What is known of the learning rate at t = 0, and said before training and after it has diverged."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from dmft_engine import Problem, solve
from dmft_schema import JobStatus, Progress
from tests.engine.test_contract import SETTINGS
from tests.problems import request

KERNEL = np.array([[1.0, 0.2, 0.1], [0.2, 1.5, 0.0], [0.1, 0.0, 0.7]])
BOUND = 2 * 3 / (3 * float(np.linalg.eigvalsh(KERNEL)[-1]))
"""2 P / lambda_max of a linear network of two layers, whose NTK at t = 0 is 3 K^x."""


def given(method: str, rate: float, **training: Any) -> dict[str, Any]:
    return {
        "data": {"kernel": KERNEL.tolist(), "targets": [1.0, -1.0, 0.5]},
        "network": {"depth": 2, "activation": "linear", "gamma0": 1e-3},
        "training": {"steps": 100, "learning_rate": rate} | training,
        "method": {"name": method} | SETTINGS[method],
    }


@pytest.mark.parametrize("method", SETTINGS)
def test_every_method_knows_its_bound(method: str) -> None:
    heard: list[Progress] = []
    result = solve(Problem.from_request(request(**given(method, 20 * BOUND))), heard.append)
    assert result.status is JobStatus.FAILED
    assert result.error is not None
    assert result.error.code == "diverged"
    (said,) = re.findall(r"stable below ([0-9.e+-]+)", result.error.advice)
    # Dense networks and samples have kernels of their own.
    exact = method in ("linear", "static_ntk", "perturbation", "gradient_independence")
    assert float(said) == pytest.approx(BOUND, rel=6e-3 if exact else 0.5)
    (advised,) = re.findall(r"for example to ([0-9.e+-]+):", result.error.advice)
    assert (
        any("above" in note and "2 P / lambda_max" in note for note in result.diagnostics.notes) or not heard
    )
    # The advice helps.
    again = solve(Problem.from_request(request(**given(method, float(advised)))))
    assert again.error is None
    assert again.arrays["loss"][-1] < again.arrays["loss"][0]
    assert not any("lambda_max" in note for note in again.diagnostics.notes)


@pytest.mark.parametrize("method", ["dmft", "linear", "static_ntk", "finite_width"])
def test_it_is_said_before_training_starts(method: str) -> None:
    heard: list[Progress] = []
    result = solve(Problem.from_request(request(**given(method, 1.6 * BOUND, steps=3))), heard.append)
    assert result.error is None
    assert "is above" in heard[0].message
    assert "is above" in result.diagnostics.notes[-1]


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_the_bound_is_where_gradient_descent_turns(factor: float) -> None:
    for momentum in (0.0, 0.5):
        rate = factor * BOUND * (1 + momentum)
        asked = given("static_ntk", rate, momentum=momentum, steps=400)
        result = solve(Problem.from_request(request(**asked)))
        grows = result.error is not None or result.arrays["loss"][-1] > result.arrays["loss"][200]
        assert grows == (factor > 1)
        assert any("is above" in note for note in result.diagnostics.notes) == (factor > 1)


def test_nothing_is_said_where_nothing_is_known() -> None:
    flow = solve(
        Problem.from_request(request(**given("dmft", 20 * BOUND, dynamics="gradient_flow", steps=3)))
    )
    assert flow.error is None
    assert not any("lambda_max" in note for note in flow.diagnostics.notes)
