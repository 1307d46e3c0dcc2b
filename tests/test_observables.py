"""Numbers read off kernels, against their definitions by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmft_schema.observables import (
    alignment,
    effective_dimension,
    finite,
    kernel_movement,
    kernel_target_alignment,
)


def test_alignment_is_a_cosine() -> None:
    kernel = np.array([[2.0, 1.0], [1.0, 2.0]])
    assert alignment(kernel, 3 * kernel) == pytest.approx(1)
    assert alignment(kernel, np.eye(2)) == pytest.approx(4 / (10**0.5 * 2**0.5))
    with pytest.raises(ValueError, match="one shape"):
        alignment(kernel, np.eye(3))


def test_target_alignment() -> None:
    y = np.array([1.0, -1.0, 2.0])
    assert kernel_target_alignment(5 * np.outer(y, y), y) == pytest.approx(1)
    assert kernel_target_alignment(np.eye(3), y) == pytest.approx(1 / 3**0.5)
    targets = np.eye(3)[:, :2]
    kernel = np.einsum("pc,qd->pcqd", targets, targets)
    assert kernel_target_alignment(kernel, targets) == pytest.approx(1)


def test_effective_dimension_counts_equal_eigenvalues() -> None:
    assert effective_dimension(7 * np.eye(4)) == pytest.approx(4)
    assert effective_dimension(np.ones((4, 4))) == pytest.approx(1)
    assert effective_dimension(np.diag([1.0, 1.0, 0.0])) == pytest.approx(2)


def test_movement_is_from_the_first_to_the_last_kernel_time() -> None:
    phi = np.zeros((3, 2, 3, 2))
    phi[0, :, 0], phi[2, :, 2] = np.eye(2), 3 * np.eye(2)
    arrays = {"kernel_times": np.arange(3), "phi_1": phi}
    assert kernel_movement(arrays, 1) == pytest.approx([2.0])
    assert kernel_movement(arrays, 2) is None


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    points=st.integers(1, 6),
    scale=st.sampled_from([0.0, 1e-300, 1e-160, 1e-30, 1.0, 1e19, 1e20, 1e160, 1e300]),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 1000),
)
def test_every_observable_is_finite_or_absent(points: int, scale: float, dtype: str, seed: int) -> None:
    """Squares neither overflow nor vanish: observables do not depend on the scale of what they observe."""
    x = np.random.default_rng(seed).normal(size=(points, points + 1))
    kernel = x @ x.T
    largest = float(np.finfo(dtype).max) / 1e3
    scaled = (kernel * min(scale, largest)).astype(dtype)
    found = finite(effective_dimension(scaled))
    aligned = finite(kernel_target_alignment(scaled, x[:, 0]))
    if not scaled.any():
        assert found is None
        assert aligned is None
    elif np.abs(scaled).max() > np.finfo(dtype).tiny * 1e8:
        assert found == pytest.approx(effective_dimension(kernel), rel=1e-4)
        assert aligned == pytest.approx(kernel_target_alignment(kernel, x[:, 0]), rel=1e-3, abs=1e-5)
    moved = kernel_movement({"kernel_times": np.arange(2), "phi_1_factor": np.stack([x, 2 * x])}, 1)
    assert moved == [pytest.approx(3.0)]
