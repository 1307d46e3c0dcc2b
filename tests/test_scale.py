"""Kernels that float32 has rounded are accepted and mended; what no solver can compute with is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dmft_engine import Problem, solve
from dmft_engine import data as engine_data
from dmft_schema import InputData, KernelData, SolveRequest, limits
from dmft_schema.limits import MAX_KERNEL_SCALE, MAX_TARGET, MIN_KERNEL_SCALE


def draw_inputs(seed: int, points: int, dimension: int, scale: float, repeats: bool) -> np.ndarray:
    inputs = np.random.default_rng(seed).standard_normal((points, dimension)) * scale**0.5
    if repeats:
        inputs[points // 2 :] = inputs[: points - points // 2]
    return inputs.astype(np.float32)


INPUTS = st.builds(
    draw_inputs,
    st.integers(0, 10**6),
    st.integers(1, 40),
    st.integers(1, 12),
    st.integers(-6, 6).map(lambda power: 10.0**power),
    st.booleans(),
)


@settings(max_examples=200, deadline=None)
@given(INPUTS, st.integers(0, 8), st.booleans())
def test_gram_matrices_of_float32_are_accepted(inputs: np.ndarray, test_points: int, mirrored: bool) -> None:
    """With more points than dimensions most have eigenvalues below zero; those are gone in the engine."""
    gram = inputs @ inputs.T / np.float32(inputs.shape[1])
    if mirrored:  # asymmetric in the last place, as products on other devices are
        gram = np.nextafter(gram, np.triu(2 * gram), dtype=np.float32)
    test_points = min(test_points, len(gram) - 1)
    points = len(gram) - test_points
    fields: dict[str, Any] = {"kernel": gram[:points, :points], "targets": np.ones(points)}
    if test_points:
        fields |= {"cross_kernel": gram[points:, :points], "test_kernel": gram[points:, points:]}
    loaded = engine_data.load(KernelData(**fields))
    top = np.abs(loaded.kernel).max()
    np.testing.assert_array_equal(loaded.kernel, loaded.kernel.T)
    assert np.linalg.eigvalsh(loaded.kernel / top)[0] > -1e-8 * len(gram)
    # As near to what was sent as rounding in float32 is to the inputs' own.
    np.testing.assert_allclose(loaded.kernel / top, gram / top, atol=len(gram) * 2.0**-23)


@settings(max_examples=100, deadline=None)
@given(INPUTS)
def test_semidefinite_kernels_stay_as_they_are(inputs: np.ndarray) -> None:
    exact = inputs.astype(np.float64)
    gram = exact @ exact.T / exact.shape[1]
    loaded = engine_data.load(KernelData(kernel=gram, targets=np.ones(len(gram))))
    np.testing.assert_array_equal(loaded.kernel, (gram + gram.T) / 2)
    assert loaded.notes == ()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 30), st.integers(-6, 6), st.floats(1.5, 1e6))
def test_what_rounding_does_not_explain_is_refused(seed: int, points: int, power: int, excess: float) -> None:
    vectors = np.linalg.qr(np.random.default_rng(seed).standard_normal((points, points)))[0]
    limit = limits.KERNEL_ROUNDING * max(4, points)
    values = np.ones(points)
    values[0] = -min(excess * limit, 0.9)
    kernel = 10.0**power * (vectors * values) @ vectors.T
    kernel = (kernel + kernel.T) / 2
    with pytest.raises(ValidationError) as caught:
        KernelData(kernel=kernel, targets=np.ones(points))
    message = str(caught.value)
    assert f"smallest eigenvalue is {values[0] * 10.0**power:.3g}" in message
    assert f"{-limit * 10.0**power:.3g}" in message
    assert ("half precision" in message) == (values[0] > -1e-2)
    assert ("no inner products" in message) == (values[0] <= -1e-2)


@pytest.mark.parametrize("test_points", [0, 2])
def test_asymmetry_beyond_rounding_is_refused(test_points: int) -> None:
    kernel = np.eye(3)
    kernel[0, 2] = 1e-5
    fields: dict[str, Any] = {"kernel": kernel, "targets": np.ones(3)}
    if test_points:
        fields |= {"kernel": np.eye(3), "cross_kernel": np.zeros((3, 3)), "test_kernel": kernel}
    with pytest.raises(ValidationError, match=r"symmetric: entries .* differ by 1e-05"):
        KernelData(**fields)


def test_the_joint_kernel_is_looked_at_as_one() -> None:
    with pytest.raises(ValidationError, match="the joint kernel"):
        KernelData(kernel=[[1.0]], targets=[1.0], cross_kernel=[[1.001]], test_kernel=[[1.0]])
    with pytest.raises(ValidationError, match="zero everywhere"):
        KernelData(kernel=np.zeros((2, 2)), targets=np.ones(2))
    with pytest.raises(ValidationError, match="positive semidefinite"):
        KernelData(kernel=[[-1.0]], targets=[1.0])


def run(data: dict[str, Any], **method: Any) -> Any:
    request = {
        "data": data,
        "network": {"depth": 2, "activation": "relu"},
        "training": {"steps": 4, "learning_rate": 0.01},
        "method": method,
    }
    return solve(Problem.from_request(SolveRequest.model_validate(request)))


@pytest.mark.parametrize(
    "method",
    [{"name": "static_ntk"}, {"name": "dmft", "samples": 2048}, {"name": "finite_width", "width": 64}],
    ids=lambda method: method["name"],
)
def test_the_answer_says_that_eigenvalues_were_set_to_zero(method: dict[str, Any]) -> None:
    inputs = draw_inputs(1, 20, 5, 1.0, False)
    gram = inputs @ inputs.T / np.float32(5)
    result = run({"kernel": gram, "targets": np.sign(inputs[:, 0])}, **method)
    assert result.error is None
    assert any("set to zero" in note for note in result.document().diagnostics.notes)
    exact = inputs.astype(np.float64)
    same = run({"inputs": exact, "targets": np.sign(inputs[:, 0])}, **method)
    assert not any("set to zero" in note for note in same.document().diagnostics.notes)
    tolerance = {"static_ntk": 1e-5}.get(method["name"])
    if tolerance:
        np.testing.assert_allclose(result.arrays["loss"], same.arrays["loss"], rtol=tolerance)


SCALES = st.one_of(st.floats(1e-320, 1e308), st.integers(-300, 300).map(lambda power: 10.0**power))


@settings(max_examples=200, deadline=None)
@given(SCALES, st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 5))
def test_absurd_scales_are_refused_by_field_value_and_limit(
    scale: float, seed: int, points: int, dimension: int
) -> None:
    """And all others are accepted, above all those between 1e-6 and 1e6."""
    inputs = np.random.default_rng(seed).uniform(0.5, 1.0, (points, dimension)) * scale
    y = np.ones(points)
    largest = max(math.fsum((x / scale) ** 2 for x in row) / dimension for row in inputs) ** 0.5 * scale
    if 1.01 * MIN_KERNEL_SCALE**0.5 < largest < 0.99 * MAX_KERNEL_SCALE**0.5:
        InputData(inputs=inputs, targets=y)
        InputData(inputs=y[:, None], targets=y, test_inputs=inputs[:, :1])
    elif not MIN_KERNEL_SCALE**0.5 <= largest <= MAX_KERNEL_SCALE**0.5:
        with pytest.raises(ValidationError, match=r"inputs has entries up to .* of point \d.*limit.*scale"):
            InputData(inputs=inputs, targets=y)
    kernel = np.eye(points) * scale
    if MIN_KERNEL_SCALE <= scale <= MAX_KERNEL_SCALE:
        KernelData(kernel=kernel, targets=y)
    else:
        with pytest.raises(ValidationError, match=r"largest entry of kernel is .*limit.*scale the data"):
            KernelData(kernel=kernel, targets=y)
    if scale <= MAX_TARGET:
        KernelData(kernel=np.eye(points), targets=-y * scale)
    else:
        with pytest.raises(ValidationError, match=r"entry \[0\] of targets is .*limit.*down"):
            KernelData(kernel=np.eye(points), targets=-y * scale)


def test_a_vector_of_huge_inputs() -> None:
    with pytest.raises(ValidationError, match=r"inputs has entries up to 1e\+170"):
        InputData(inputs=[[1e170], [1.0]], targets=[1.0, -1.0])
    with pytest.raises(ValidationError, match=r"test_inputs has entries up to 1e\+170"):
        InputData(inputs=[[1.0]], targets=[1.0], test_inputs=[[1e170]])
    InputData(inputs=[[1.0]], targets=[0.0], test_inputs=[[0.0]])
