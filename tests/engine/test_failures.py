"""Every way for a solve to end: whatever is asked, solve() returns a Result with the engine's own errors."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dmft_engine import Problem, solve
from dmft_engine.errors import NotFinite, NotPositive
from dmft_engine.factorisation import (
    cholesky,
    eigh,
    kernel_factor,
    pivoted_factor,
    principal_axes,
    pseudo_inverse,
)
from dmft_schema import JobStatus
from dmft_schema.memory import Demand, shortage
from dmft_schema.sizes import Sizes
from tests.problems import request

CODES = {
    "diverged",
    "too_few_samples",
    "out_of_memory",
    "step_too_small",
    "too_little_precision",
    "not_positive",
    "solve_failed",
}
OPTIONS: dict[str, dict[str, Any]] = {
    "dmft": {"samples": 256, "replicas": 2},
    "alternating": {"samples": 128, "replicas": 2, "max_iterations": 3},
    "linear": {},
    "gradient_independence": {"samples": 256, "replicas": 2},
    "perturbation": {"samples": 256, "replicas": 2},
    "static_ntk": {},
    "finite_width": {"width": 8, "ensemble": 2},
}


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Small problems of every kind, most of them of unreasonable sizes; some are refused."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    points, outputs = draw(st.integers(1, 4)), draw(st.sampled_from([1, 1, 3]))
    inputs = generator.normal(size=(points, 3)) * 10.0 ** draw(
        st.sampled_from([-150, -8, -2, 0, 0, 2, 8, 40, 150])
    )
    targets = generator.choice([-1.0, 1.0], size=(points, outputs)) * 10.0 ** draw(
        st.sampled_from([0, 0, 3, 12])
    )
    method = draw(st.sampled_from(sorted(OPTIONS)))
    depth = draw(st.integers(1, 3))
    dtype = {"dtype": draw(st.sampled_from(["float32", "float64"]))}
    activations = ["linear", "tanh", "relu", "quadratic", "softplus"]
    plain = method not in ("dmft", "finite_width")
    if method == "linear":
        activations = ["linear"]
    if method in ("alternating", "perturbation"):
        activations = ["linear", "tanh", "softplus"]

    def unusual(usual: Any, *others: Any) -> Any:
        """The usual, more often than not; always for methods that take nothing else."""
        return usual if plain else draw(st.sampled_from([usual, usual, *others]))

    return {
        "data": {"inputs": inputs.tolist(), "targets": (targets[:, 0] if outputs == 1 else targets).tolist()},
        "network": {
            "depth": depth,
            "activation": draw(st.sampled_from(activations)),
            "gamma0": draw(st.sampled_from([0.0, 1e-12, 1e-6, 1e-3, 1.0, 10.0, 1000.0])),
            "bias_scale": unusual(0.0, 1.0),
            "weight_scales": unusual(None, [100.0] * (depth + 1)),
        },
        "training": {
            "steps": draw(st.integers(1, 12)),
            "learning_rate": 10.0 ** draw(st.integers(-6, 4)),
            "momentum": unusual(0.0, 0.9),
            "weight_decay": unusual(0.0, 1.0, 1000.0),
            "dynamics": unusual("gradient_descent", "gradient_flow"),
        },
        "method": {"name": method}
        | OPTIONS[method]
        | (dtype if method not in ("perturbation", "linear") else {}),
        "outputs": {"responses": unusual(False, True), "field_times": unusual([], [0, -1])},
    }


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(requests())
def test_a_solve_ends_by_the_engines_own_errors(sections: dict[str, Any]) -> None:
    try:
        built = Problem.from_request(request(**sections))
    except ValidationError:
        return
    result = solve(built)
    assert result.status in (JobStatus.SUCCEEDED, JobStatus.FAILED)
    if result.status is JobStatus.FAILED:
        assert result.error is not None
        assert result.error.code in CODES
        assert result.error.advice
    assert all(np.isfinite(array).all() for array in result.arrays.values() if array.dtype.kind == "f")
    # What the client reads: numbers, or nothing.
    text = result.document().model_dump_json()
    assert result.document().model_validate_json(text).model_dump() == json.loads(text)
    assert "NaN" not in text
    assert "Infinity" not in text


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.sampled_from(sorted(OPTIONS)),
    st.integers(1, 64),
    st.integers(1, 2000),
    st.integers(1, 100),
    st.integers(1, 100_000),
    st.floats(1e3, 1e13),
)
def test_what_does_not_fit_is_told_what_would(
    method: str, width: int, points: int, outputs: int, steps: int, limit: float
) -> None:
    options = {"width": width, "ensemble": 1} if method == "finite_width" else {}
    small = request(
        {"kernel": [[1.0]], "targets": [1.0]},
        network={"activation": "linear"},
        method={"name": method} | options,
    )
    training = small.training.model_copy(update={"steps": steps})
    asked = small.model_copy(update={"training": training})
    found = shortage(Demand.of(asked, Sizes(points, 0, outputs)), limit)
    assert found is None or (found.message and found.advice)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_factorisations_name_what_is_not_finite(broken: float) -> None:
    matrix = np.eye(3)
    matrix[1, 1] = broken
    tensor = torch.tensor(matrix)[None]
    for factored in (
        lambda: cholesky(tensor.clone(), 1e-7),
        lambda: eigh(tensor),
        lambda: kernel_factor(tensor[0]),
        lambda: pseudo_inverse(tensor, 1e-4),
        lambda: pivoted_factor(matrix, 1e-9),
        lambda: principal_axes(matrix),
    ):
        with pytest.raises(NotFinite):
            factored()


def test_cholesky_adds_little_and_gives_up() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 3, generator=generator, dtype=torch.float64)
    singular = x @ x.mT
    factor = cholesky(singular.clone(), 1e-16)
    torch.testing.assert_close(factor @ factor.mT, singular, rtol=0, atol=1e-10)
    with pytest.raises(NotPositive, match="negative"):
        cholesky(singular - 0.1 * singular.amax() * torch.eye(6), 1e-7)
