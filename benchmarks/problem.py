"""The problem that all benchmarks share: P random points on a sphere, tanh, depth 3, gamma0 = 1."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from dmft_engine import Problem, Result, solve
from dmft_schema import SolveRequest

TRAINING_TIME = 10.0
"""eta T: shared by all runs, whatever their number of steps."""


def problem(steps: int, points: int = 10, depth: int = 3, **method: Any) -> Problem:
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(points, 2 * points))
    inputs *= np.sqrt(2 * points) / np.linalg.norm(inputs, axis=1, keepdims=True)
    request = {
        "data": {"inputs": inputs.tolist(), "targets": np.sign(generator.normal(size=points)).tolist()},
        "network": {"depth": depth, "activation": "tanh", "gamma0": 1.0},
        "training": {"steps": steps, "learning_rate": TRAINING_TIME / steps},
        "method": method,
        "outputs": {"kernels": ["phi", "g", "ntk"]},
    }
    return Problem.from_request(SolveRequest.model_validate(request))


def timed(given: Problem) -> tuple[Result, float]:
    """The result, and seconds from problem to arrays."""
    started = time.perf_counter()
    result = solve(given)
    seconds = time.perf_counter() - started
    if result.error is not None:
        raise RuntimeError(result.error.message)
    return result, seconds
