"""Results are put together by what it costs, with progress, and can be stopped without losing training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmft_engine import Problem, solve
from dmft_engine.record import kernel_record
from dmft_engine.record.kernel_record import dense_or_factor
from dmft_engine.training.reporter import TRAINING_SHARE, Cancelled
from dmft_schema import JobStatus, Progress
from tests.problems import request

GIVEN: dict[str, Any] = {
    "data": {
        "inputs": np.random.default_rng(3).normal(size=(4, 5)).tolist(),
        "targets": [1.0, -1.0, 1.0, 0.5],
    },
    "network": {"depth": 2, "activation": "erf"},
    "training": {"steps": 15},
    "method": {"name": "dmft", "samples": 1024, "replicas": 2},
}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    rows=st.integers(1, 40),
    width=st.integers(1, 80),
    rank=st.integers(1, 40),
    rotated=st.sampled_from([0, 1024]),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 1000),
)
def test_any_form_is_the_kernel_within_its_error(
    rows: int, width: int, rank: int, rotated: int, dtype: str, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    low = generator.normal(size=(rows, rank)) @ generator.normal(size=(rank, width))
    factor = low.astype(dtype)
    patch = pytest.MonkeyPatch()
    patch.setattr(kernel_record, "MOST_ROTATED", rotated)
    try:
        array, dense = dense_or_factor(factor, 1e-5)
    finally:
        patch.undo()
    kernel = array if dense else array @ array.T
    expected = low @ low.T
    assert np.abs(kernel - expected).max() <= 3e-5 * expected.diagonal().max()
    # Never larger than what it was made from.
    assert array.size <= max(factor.size, rows)


def test_a_wide_factor_of_a_full_kernel_is_multiplied_out() -> None:
    """10 points at 205 times whose gradients are new at every step: a minute and a half by principal axes."""
    factor = np.random.default_rng(0).normal(size=(205, 10, 4100)).astype(np.float32)
    array, dense = dense_or_factor(factor, 3e-5)
    assert dense
    assert array.shape == (205, 10, 205, 10)
    flat = factor.reshape(2050, -1).astype(np.float64)
    np.testing.assert_allclose(array.reshape(2050, 2050)[7], flat @ flat[7], rtol=1e-4, atol=0.05)


@pytest.mark.parametrize("shape", [(300, 2000), (2500, 2000)], ids=["multiplied out", "row by row"])
def test_it_stops_when_asked(shape: tuple[int, int]) -> None:
    factor = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        dense_or_factor(factor, 1e-6, check)


def test_the_phase_is_reported_and_reaches_the_end_once() -> None:
    heard: list[Progress] = []
    result = solve(Problem.from_request(request(**GIVEN)), heard.append)
    assert result.status is JobStatus.SUCCEEDED
    fractions = [p.fraction for p in heard]
    assert fractions == sorted(fractions)
    assert [p.fraction == 1.0 for p in heard] == [False] * (len(heard) - 1) + [True]
    phase = [p for p in heard if "putting the result together" in p.message]
    named = zip(phase, ["ntk", "phi_1", "phi_2", "g_1", "g_2"], strict=True)
    assert all(word in p.message for p, word in named)
    assert all(TRAINING_SHARE <= p.fraction < 1 for p in phase)
    assert all(p.eta_seconds is not None and p.eta_seconds >= 0 for p in phase[1:])
    assert heard[-1].eta_seconds == 0


def test_cancelled_in_that_phase_keeps_the_trajectory(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = solve(Problem.from_request(request(**GIVEN)))
    # As if every kernel were large.
    monkeypatch.setattr("dmft_engine.record.assembly.CHEAP", -1.0)
    heard: list[Progress] = []
    result = solve(
        Problem.from_request(request(**GIVEN)),
        heard.append,
        should_stop=lambda: "phi_2" in heard[-1].message,
    )
    assert result.status is JobStatus.CANCELLED
    for name in ("loss", "predictions", "loss_standard_error", "times", "ntk", "phi_1"):
        np.testing.assert_array_equal(result.arrays[name], whole.arrays[name])
    assert not {"phi_2", "g_1", "g_2"} & set(result.arrays)
    assert any("phi_2, g_1, g_2 left out" in note for note in result.diagnostics.notes)
    document = result.document()
    assert not document.complete
    assert document.loss == whole.document().loss


def test_cancelled_when_little_is_left_is_a_success() -> None:
    heard: list[Progress] = []
    built = Problem.from_request(request(**GIVEN))
    result = solve(built, heard.append, should_stop=lambda: "together" in heard[-1].message)
    assert result.status is JobStatus.SUCCEEDED
    assert "g_2" in result.arrays
