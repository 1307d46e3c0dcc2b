"""Algorithm 1 against solvers that share nothing with it but the model: `dmft` and `linear`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dmft_engine import Problem, solve
from dmft_engine.model.activations import ACTIVATIONS
from tests.accuracy import Accuracy
from tests.engine.test_dmft import joint_t_quantile
from tests.problems import request, run, sphere, stored

REPLICAS = 8


def setting(activation: str, depth: int, points: int = 4, steps: int = 30, **network: Any) -> dict[str, Any]:
    return {
        "data": sphere(points, 6),
        "network": {"depth": depth, "activation": activation, "gamma0": 1.0} | network,
        "training": {"steps": steps, "learning_rate": 0.3},
    }


def alternating(problem: dict[str, Any], samples: int = 8192, **outputs: Any) -> dict[str, np.ndarray]:
    method = {"name": "alternating", "samples": samples, "replicas": REPLICAS}
    result = run(**problem, method=method, outputs=outputs)
    assert result.diagnostics.converged, result.diagnostics.notes
    return result.arrays


def limit(problem: dict[str, Any]) -> dict[str, np.ndarray]:
    method = {"name": "dmft", "readout": "ntk", "samples": 32768, "replicas": REPLICAS, "tolerance": 3e-3}
    return run(**problem, method=method).arrays


def assert_within_errors(found: np.ndarray, expected: np.ndarray, error: np.ndarray) -> None:
    """All entries together: a Bonferroni quantile of t with one degree less than replicas."""
    quantile = joint_t_quantile(REPLICAS, error.size, 0.999)
    assert (np.abs(found - expected) <= quantile * error + 1e-6).all()


@pytest.mark.parametrize(
    ("activation", "depth"), [("tanh", 1), ("tanh", 2), ("tanh", 3), ("erf", 2), ("softplus", 2)]
)
def test_meets_dmft_within_both_errors(activation: str, depth: int, accuracy: Accuracy) -> None:
    problem = setting(activation, depth)
    iterated, revealed = alternating(problem), limit(problem)
    error = np.hypot(iterated["loss_standard_error"], revealed["loss_standard_error"])
    judge = "`dmft`, readout ntk"
    what = f"`alternating`, {activation} L = {depth}"
    accuracy(f"{what}: loss", judge, iterated["loss"] - revealed["loss"], error)
    assert_within_errors(iterated["loss"], revealed["loss"], error)
    # The test must be able to fail.
    assert error.max() < 0.02
    for name in ("phi", "g"):
        for layer in range(1, depth + 1):
            key = f"{name}_{layer}"
            times = np.arange(len(iterated["loss"]))
            error = np.hypot(iterated[f"{key}_standard_error"], revealed[f"{key}_standard_error"])
            found, expected = (a[key][times, :, times] for a in (iterated, revealed))
            accuracy(f"{what}: {name} of all layers at equal times", judge, found - expected, error)
            assert_within_errors(found, expected, error)
            assert error.max() < 0.1 * np.abs(expected).max()


def test_several_outputs_biases_and_scales_meet_dmft(accuracy: Accuracy) -> None:
    problem = setting("tanh", 2, steps=20, bias_scale=0.4, weight_scales=[1.2, 0.8, 1.1])
    problem["data"]["targets"] = np.eye(2)[[0, 1, 1, 0]].tolist()
    iterated, revealed = alternating(problem), limit(problem)
    error = np.hypot(iterated["predictions_standard_error"], revealed["predictions_standard_error"])
    difference = iterated["predictions"] - revealed["predictions"]
    what = "`alternating`, tanh L = 2, two outputs, biases, scales: predictions"
    accuracy(what, "`dmft`, readout ntk", difference, error)
    assert_within_errors(iterated["predictions"], revealed["predictions"], error)
    assert iterated["g_1"].shape == (20, 4, 2, 20, 4, 2)


def test_responses_of_a_linear_network_meet_the_algebra(accuracy: Accuracy) -> None:
    """Summed over the data index of the field that is varied, which linear networks do not have."""
    problem = setting("linear", 3, steps=15)
    iterated = alternating(problem, responses=True)
    exact = run(**problem, method={"name": "linear", "readout": "ntk"}, outputs={"responses": True}).arrays
    for layer in (1, 2):
        a, b = iterated[f"a_{layer}"], iterated[f"b_{layer}"]
        assert a.shape == b.shape == (15, 4, 15, 4)
        errors = {name: iterated[f"{name}_{layer}_standard_error"] for name in "ab"}
        for name, found, summed in (("a", a.sum(3), 3), ("b", b.mean(1), 1)):
            expected = exact[f"{name}_{layer}"]
            # Errors of a sum are at most the sum of errors.
            error = errors[name].sum(summed) if summed == 3 else errors[name].max(summed)
            what = f"`alternating`, linear L = 3: {name} of all layers, summed over points"
            accuracy(what, "`linear`", found - expected, error)
            assert_within_errors(found, expected, error)
            assert np.abs(expected).max() > 5 * error.max()
        early = np.triu_indices(15)
        assert (a.transpose(0, 2, 1, 3)[early] == 0).all()


def test_equal_time_response_is_the_mean_curvature() -> None:
    """B^l(t, t) = <phi''(h) z> on its diagonal: at t = 0 by Gaussian integration, z = w independent of h."""
    problem = setting("softplus", 2, steps=8)
    b = alternating(problem, responses=True)["b_1"]
    same = np.arange(8)
    off_diagonal = b[same, :, same] * (1 - np.eye(4))
    assert np.abs(off_diagonal).max() == 0
    assert np.abs(b[0, :, 0]).max() < 1e-3
    assert np.abs(b[7, :, 7].diagonal()).min() > 1e-3


def test_an_iteration_cut_short_says_so() -> None:
    problem = setting("tanh", 2, steps=10)
    method = {"name": "alternating", "samples": 512, "max_iterations": 2}
    result = run(**problem, method=method)
    assert result.diagnostics.converged is False
    assert "not converged" in result.diagnostics.notes[0]
    assert "method.max_iterations" in result.diagnostics.notes[0]
    assert result.arrays["iteration_kernel_change"].shape == (2,)


def test_damping_reaches_the_same_fixed_point() -> None:
    """Random numbers are common to all iterations, so the fixed point is one of a deterministic map."""
    problem = setting("tanh", 2, steps=10)
    results = [
        run(
            **problem,
            method={
                "name": "alternating",
                "samples": 1024,
                "damping": damping,
                "tolerance": 1e-5,
                "dtype": "float64",
            },
        )
        for damping in (0.0, 0.3)
    ]
    for result in results:
        assert result.diagnostics.converged
    np.testing.assert_allclose(results[0].arrays["loss"], results[1].arrays["loss"], rtol=1e-4)


def test_progress_tells_how_the_kernels_move() -> None:
    messages: list[str] = []
    problem = Problem.from_request(
        request(**setting("tanh", 2, steps=5), method={"name": "alternating", "samples": 512})
    )
    solve(problem, lambda progress: messages.append(progress.message))
    assert messages[0].startswith("iteration 1: kernels moved by")
    # Putting the result together comes after it.
    of_iterations = [m for m in messages if "together" not in m and m != "done"]
    assert of_iterations[-1].startswith("converged in")


def test_derivatives_of_activations() -> None:
    h = torch.linspace(-2, 2, 41, dtype=torch.float64)
    step = 1e-4
    for name, activation in ACTIVATIONS.items():
        if name == "relu":
            continue
        value, first, second = activation.with_two_derivatives(h)
        ahead, behind = activation.function(h + step), activation.function(h - step)
        torch.testing.assert_close(first, (ahead - behind) / (2 * step), atol=1e-7, rtol=1e-6)
        torch.testing.assert_close(second, (ahead - 2 * value + behind) / step**2, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_error_bars_are_honest() -> None:
    """Over 16 seeds: no bias beside the spread, and a spread like the errors reported."""
    seeds = 16
    problem = setting("tanh", 2, steps=15)
    expected = limit(problem)
    runs = [
        run(**problem, method={"name": "alternating", "samples": 8192, "replicas": REPLICAS, "seed": seed})
        for seed in range(100, 100 + seeds)
    ]
    losses = np.array([result.arrays["loss"] for result in runs])[:, 1:]
    spread = losses.std(axis=0, ddof=1)
    reported = np.array([result.arrays["loss_standard_error"] for result in runs])[:, 1:]
    ratio = np.sqrt((reported**2).mean(axis=0)) / spread
    assert (ratio > 1 / 1.6).all()
    assert (ratio < 1.6).all()
    own = np.hypot(spread / seeds**0.5, expected["loss_standard_error"][1:])
    quantile = joint_t_quantile(seeds, own.size, 0.999)
    assert (np.abs(losses.mean(axis=0) - expected["loss"][1:]) <= quantile * own).all()


@pytest.mark.slow
def test_the_reference_problem(accuracy: Accuracy) -> None:
    """tanh_L3, at the size of the paper's own runs."""
    problem = stored("tanh_L3")
    found = run(**problem, method={"name": "alternating"})
    assert found.diagnostics.converged
    expected = run(
        **problem, method={"name": "dmft", "readout": "ntk", "samples": 32768, "replicas": 8}
    ).arrays
    error = np.hypot(found.arrays["loss_standard_error"], expected["loss_standard_error"])
    difference = found.arrays["loss"] - expected["loss"]
    accuracy("`alternating`, tanh L = 3, P = 10, T = 100: loss", "`dmft`, readout ntk", difference, error)
    quantile = joint_t_quantile(4, error.size, 0.999)
    assert (np.abs(found.arrays["loss"] - expected["loss"]) <= quantile * error + 1e-6).all()
    assert error.max() < 0.02
