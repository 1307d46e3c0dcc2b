"""The deferred-decision solver for nonlinear networks: accuracy, honesty of its error bars, limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from dmft_engine import Problem, solve
from dmft_schema import JobStatus
from tests.accuracy import Accuracy
from tests.problems import reference, request, run, sphere, stored

# TANH_L3 by `dmft` itself with 16 replicas of 4096 at tolerance 2e-3 (seed 11): t -> loss, standard error.
# The dense networks below, which share nothing with it but the model, agree with it as N grows.
PRECISE = {
    1: (0.98593859, 1.05e-5),
    10: (0.86212007, 1.01e-4),
    30: (0.51031666, 3.98e-4),
    60: (0.07663185, 2.25e-4),
    99: (0.00965807, 3.17e-5),
}


def joint_t_quantile(replicas: int, times: int, confidence: float = 0.99) -> float:
    """Standard errors, each from `replicas` values, that bound `times` deviations at once (Bonferroni)."""
    return float(stats.t.ppf(1 - (1 - confidence) / (2 * times), replicas - 1))


def tanh(seed: int = 0, **method: object):
    options = {"name": "dmft", "samples": 4096, "seed": seed} | method
    return run(**stored("tanh_L3"), method=options, outputs={"kernels": []}).arrays


def test_first_step_meets_the_exact_kernel(accuracy: Accuracy) -> None:
    """loss(1) follows from the NTK at t = 0, which quadrature gives to twelve digits."""
    problem = stored("tanh_L3")
    lazy = run(**problem, method={"name": "static_ntk"}).arrays["loss"]
    result = tanh()
    # The readouts differ by the curvature of one step, 2e-6 here.
    allowance = joint_t_quantile(4, 1) * result["loss_standard_error"][1] + 4e-6
    difference = result["loss"][1] - lazy[1]
    accuracy(
        "`dmft`, tanh L = 3: loss after one step",
        "the NTK at t = 0, by quadrature",
        difference,
        result["loss_standard_error"][1],
    )
    assert abs(difference) < allowance


def test_loss_within_its_error_of_the_precise_run(accuracy: Accuracy) -> None:
    result = tanh(seed=5)
    quantile = joint_t_quantile(4, len(PRECISE))
    for t, (loss, error) in PRECISE.items():
        own = result["loss_standard_error"][t]
        allowance = quantile * np.hypot(own, error) + result["loss_truncation_error"][t]
        difference = result["loss"][t] - loss
        accuracy(
            "`dmft`, tanh L = 3, 4096 samples: loss",
            "`dmft` with 16 times the samples and a fifth of the tolerance",
            difference,
            np.hypot(own, error),
        )
        assert abs(difference) < allowance, t


def test_loss_within_its_error_of_the_reference() -> None:
    answers = reference("tanh_L3")["exact"]
    result = tanh(seed=5)
    times = len(result["loss"])
    allowance = (
        joint_t_quantile(4, times) * np.hypot(result["loss_standard_error"], answers["loss_standard_error"])
        + result["loss_truncation_error"]
    )
    assert (np.abs(result["loss"] - answers["loss"]) <= allowance + 1e-12).all()


@pytest.mark.slow
def test_error_bars_are_honest(accuracy: Accuracy) -> None:
    """Over 20 seeds the spread of the loss matches the mean reported error within a factor 1.5, and
    the mean lies within its own error of the precise run."""
    runs = [tanh(seed) for seed in range(20)]
    losses = np.array([r["loss"] for r in runs])
    reported = np.sqrt(np.mean([r["loss_standard_error"] ** 2 for r in runs], axis=0))
    spread = losses.std(axis=0, ddof=1)
    late = slice(5, None)
    ratio = reported[late] / spread[late]
    accuracy(
        "`dmft`, tanh L = 3: error bars over the spread of 20 seeds, minus 1",
        "their spread",
        np.exp(np.log(ratio).mean()) - 1,
    )
    assert 1 / 1.5 < np.exp(np.log(ratio).mean()) < 1.5
    for t, (loss, error) in PRECISE.items():
        allowance = joint_t_quantile(20, len(PRECISE)) * np.hypot(spread[t] / 20**0.5, error)
        truncation = np.mean([r["loss_truncation_error"][t] for r in runs])
        assert abs(losses[:, t].mean() - loss) < allowance + truncation, t


@pytest.mark.slow
def test_default_tolerance_truncates_less_than_the_statistical_error(accuracy: Accuracy) -> None:
    """With one seed the noise is the same at every tolerance, so the difference is truncation alone.
    (More samples than by default, for the many directions of the finer tolerance.)"""
    seeds = range(4)
    default, fine = (
        np.mean([tanh(s, samples=8192, tolerance=tolerance)["loss"] for s in seeds], axis=0)
        for tolerance in (1e-2, 3e-3)
    )
    statistical = np.mean([tanh(s)["loss_standard_error"] for s in seeds], axis=0)
    late = slice(5, None)
    accuracy(
        "`dmft`, tanh L = 3, default tolerance: truncation of the loss",
        "`dmft` at a third of it, same seeds",
        np.abs(default - fine)[late],
        statistical[late],
    )
    assert np.mean(np.abs(default - fine)[late] / statistical[late]) < 1


@pytest.mark.slow
def test_difference_to_dense_networks_shrinks_as_one_over_width(accuracy: Accuracy) -> None:
    """loss_N = loss + a / N + noise: extrapolated to N = infinity it meets dmft within both errors,
    and the differences themselves go as 1 / N."""
    problem = stored("tanh_L3")
    widths = {500: 32, 1000: 16, 2000: 8}
    dense = {
        width: run(
            **problem,
            method={"name": "finite_width", "width": width, "ensemble": members, "seed": width},
            outputs={"kernels": []},
        ).arrays
        for width, members in widths.items()
    }
    limit = tanh(seed=3, samples=16384, tolerance=3e-3)
    inverse = 1 / np.array(list(widths))
    for t in (30, 50, 70):
        losses = np.array([dense[width]["loss"][t] for width in widths])
        errors = np.array([dense[width]["loss_standard_error"][t] for width in widths])
        slope, covariance = np.polyfit(inverse, losses, 1, w=1 / errors, cov="unscaled")
        extrapolated, error = slope[1], covariance[1, 1] ** 0.5
        own = np.hypot(limit["loss_standard_error"][t], error)
        accuracy(
            "`dmft`, tanh L = 3: loss",
            "networks of width 500, 1000 and 2000, extrapolated in 1/N",
            extrapolated - limit["loss"][t],
            own + limit["loss_truncation_error"][t],
        )
        assert abs(extrapolated - limit["loss"][t]) < 4 * own + limit["loss_truncation_error"][t]
        # Nothing but a / N is left: deviations from the line are within the networks' own errors.
        assert (np.abs(np.polyval(slope, inverse) - losses) < 4 * errors).all()
        predicted = slope[0] * inverse
        assert (np.abs(losses - limit["loss"][t] - predicted) < 5 * np.hypot(errors, own)).all()


@pytest.mark.parametrize("gamma0", [0.05, 0.2, 1.0, 2.0])
def test_results_do_not_depend_on_the_tolerance(gamma0: float) -> None:
    """Between 1e-4 and 2e-2 the loss moves by less than 1%, at small gamma0 as at large."""
    problem = stored("tanh_L3")
    problem["network"]["gamma0"] = gamma0
    problem["training"]["steps"] = 40
    losses = [
        run(
            **problem,
            method={"name": "dmft", "samples": 8192, "replicas": 2, "tolerance": tolerance, "seed": 1},
            outputs={"kernels": []},
        ).arrays["loss"]
        for tolerance in (1e-4, 1e-3, 2e-2)
    ]
    for coarser in losses[1:]:
        np.testing.assert_allclose(coarser, losses[0], rtol=0.01)


def test_both_readouts_meet_as_steps_shrink() -> None:
    """The readouts differ at first order in eta: half the step, half the difference."""
    data = sphere(4, 5)
    differences = []
    for steps in (20, 40):
        training = {"learning_rate": 4.0 / steps, "steps": steps}
        network = {"depth": 2, "activation": "linear", "gamma0": 1.0}
        results = [
            run(data, network=network, training=training, method={"name": "linear", "readout": readout})
            for readout in ("exact", "ntk")
        ]
        losses = [r.arrays["loss"][steps // 2] for r in results]
        differences.append(abs(losses[0] - losses[1]))
    assert 1.6 < differences[0] / differences[1] < 2.6


def test_too_few_samples_says_how_many_would_do_and_they_do() -> None:
    problem = stored("tanh_L3")
    method = {"name": "dmft", "samples": 512, "replicas": 2}
    failed = solve(Problem.from_request(request(**problem, method=method)))
    assert failed.status is JobStatus.FAILED
    assert failed.error is not None
    assert failed.error.code == "too_few_samples"
    enough = int(failed.error.advice.split("method.samples to ")[1].split(",")[0])
    assert len(failed.arrays["loss"]) == failed.error.step
    done = run(**problem, method=method | {"samples": enough}, outputs={"kernels": []})
    np.testing.assert_allclose(done.arrays["loss"][:3], failed.arrays["loss"][:3], rtol=0.01)


def test_samples_left_open_grow_until_they_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the estimate that they begin with be too low."""
    monkeypatch.setattr("dmft_schema.memory.Demand.enough_samples", property(lambda demand: 2048))
    data = {"dataset": "digits", "classes": [0, 1], "samples": 16}
    messages = []
    result = solve(
        Problem.from_request(request(data, training={"steps": 40}, outputs={"kernels": []})),
        lambda progress: messages.append(progress.message),
    )
    assert result.error is None
    assert result.diagnostics.samples == 4096
    assert messages[-1] == "done (begun again with 4096 samples)"


@pytest.mark.parametrize(
    ("points", "changes"),
    [
        (16, {}),
        (40, {}),
        (16, {"network": {"gamma0": 8.0}, "training": {"steps": 60, "learning_rate": 0.05}}),
        (12, {"network": {"activation": "gelu"}, "training": {"steps": 60}}),
        (10, {"network": {"activation": "relu", "depth": 2}}),
        (10, {"network": {"architecture": "residual", "depth": 3}}),
        (10, {"method": {"tolerance": 1e-3}}),
    ],
)
def test_samples_left_open_suffice_at_once(points: int, changes: dict[str, Any]) -> None:
    messages = set()
    data = {"dataset": "digits", "classes": [0, 1], "samples": points}
    sections: dict[str, Any] = {"training": {"steps": 30}, "outputs": {"kernels": []}} | changes
    result = solve(Problem.from_request(request(data, **sections)), lambda p: messages.add(p.message))
    assert result.error is None
    assert messages == {"training", "done"}


def test_test_points_do_not_change_training() -> None:
    data = sphere(8, 10)
    split = {
        "inputs": data["inputs"][:5],
        "targets": data["targets"][:5],
        "test_inputs": data["inputs"][5:],
    }
    options = {"name": "dmft", "samples": 8192, "tolerance": 1e-3}
    with_test = run(split, training={"steps": 30}, method=options).arrays
    without = run(
        {key: split[key] for key in ("inputs", "targets")}, training={"steps": 30}, method=options
    ).arrays
    error = np.hypot(with_test["loss_standard_error"], without["loss_standard_error"])
    allowance = joint_t_quantile(4, 30) * error + with_test["loss_truncation_error"] + 1e-9
    assert (np.abs(with_test["loss"] - without["loss"]) < allowance).all()
    assert "test_loss" not in with_test
    assert with_test["test_predictions"].shape == (30, 3)
