"""Every training and network option: the limit against dense networks extrapolated in 1/N.

The dense networks are judged by torch.optim in test_finite_width.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.accuracy import Accuracy
from tests.problems import run

STEPS = 40
WIDTHS = {250: 64, 500: 32, 1000: 16}
GENERATOR = np.random.default_rng(4)
INPUTS = GENERATOR.normal(size=(4, 8)).tolist()
SIGNS = [1.0, -1.0, -1.0, 1.0]
ONE_HOT = np.eye(3)[[0, 1, 2, 0]].tolist()

OPTIONS: dict[str, dict[str, Any]] = {
    "momentum": {"training": {"momentum": 0.8, "learning_rate": 0.05}},
    "weight decay": {"training": {"weight_decay": 0.3}},
    "schedule": {"training": {"schedule": "cosine"}},
    "minibatches": {"training": {"batch_size": 2, "learning_rate": 0.1}},
    "logistic": {"training": {"loss": "logistic", "learning_rate": 1.0}},
    "hinge": {"training": {"loss": "hinge", "learning_rate": 0.06}},
    "cross-entropy": {"training": {"loss": "cross_entropy", "learning_rate": 1.0}, "targets": ONE_HOT},
    "several outputs": {"targets": ONE_HOT},
    "biases": {"network": {"bias_scale": 0.5}},
    "scales": {"network": {"weight_scales": [1.2, 0.8, 1.1]}},
    "large learning rate": {"training": {"learning_rate": 1.2}},
    "one layer": {"network": {"depth": 1}},
    "relu with weight decay": {"network": {"activation": "relu"}, "training": {"weight_decay": 0.2}},
    "residual": {"network": {"architecture": "residual", "depth": 4, "branch_scale": 1.3}},
    "residual with biases, scales and weight decay": {
        "network": {
            "architecture": "residual",
            "depth": 3,
            "bias_scale": 0.4,
            "weight_scales": [1.0, 0.8, 1.2, 1.1],
        },
        "training": {"weight_decay": 0.2},
    },
    "feedback alignment": {
        "network": {"depth": 3},
        "training": {"backward_rule": "feedback_alignment"},
    },
    "direct feedback alignment": {
        "network": {"depth": 3},
        "training": {"backward_rule": "direct_feedback_alignment", "weight_decay": 0.1},
    },
    "gradient flow": {"training": {"dynamics": "gradient_flow", "flow_tolerance": 1e-3, "weight_decay": 0.1}},
    "all": {
        "network": {"bias_scale": 0.5, "weight_scales": [1.2, 0.8, 1.1]},
        "training": {"momentum": 0.5, "weight_decay": 0.2, "batch_size": 3, "schedule": "linear"},
    },
}


def solved(options: dict[str, Any], **method: Any) -> dict[str, np.ndarray]:
    return run(
        {"inputs": INPUTS, "targets": options.get("targets", SIGNS)},
        network={"depth": 2, "activation": "tanh", "gamma0": 1.0} | options.get("network", {}),
        training={"steps": STEPS, "learning_rate": 0.2} | options.get("training", {}),
        method=method,
        outputs={"kernels": ["phi"], "kernel_times": [-1]},
    ).arrays


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_limit_meets_dense_networks_extrapolated(name: str, accuracy: Accuracy) -> None:
    """A line in 1/N through three widths meets dmft at N = infinity, within both errors."""
    options = OPTIONS[name]
    limit = solved(options, name="dmft", samples=16384, replicas=8, tolerance=0.01, seed=1)
    dense = [
        solved(options, name="finite_width", width=width, ensemble=members, seed=width)
        for width, members in WIDTHS.items()
    ]
    inverse = 1 / np.array(list(WIDTHS))
    times = [5, 15, 25, 39]
    # Bonferroni over times; the limit's error comes from 8 replicas, the others' from more.
    quantile = float(stats.t.ppf(1 - 0.001 / (2 * len(times)), 7))
    differences, bars = [], []
    for t in times:
        losses = np.array([d["loss"][t] for d in dense])
        errors = np.array([d["loss_standard_error"][t] for d in dense])
        line, covariance = np.polyfit(inverse, losses, 1, w=1 / errors, cov="unscaled")
        own = np.hypot(limit["loss_standard_error"][t], covariance[1, 1] ** 0.5)
        allowance = quantile * own + limit["loss_truncation_error"][t]
        differences.append(line[1] - limit["loss"][t])
        bars.append(own + limit["loss_truncation_error"][t])
        assert abs(line[1] - limit["loss"][t]) < allowance, (name, t)
        # The test must be able to fail: the errors are small against the loss.
        assert own < 0.1 * max(limit["loss"][t], 0.05), (name, t)
    accuracy(
        f"`dmft` with {name}: loss", "networks of width 250 to 1000, extrapolated in 1/N", differences, bars
    )


def test_static_ntk_with_options_is_the_limit_of_small_gamma0() -> None:
    for name in ("momentum", "schedule", "minibatches", "cross-entropy", "biases", "scales", "residual"):
        options = dict(OPTIONS[name])
        options["network"] = {"activation": "erf", "gamma0": 1e-3} | options.get("network", {})
        lazy = solved(options, name="static_ntk")
        limit = solved(options, name="dmft", samples=4096, dtype="float64")
        allowance = 13 * limit["loss_standard_error"] + 1e-5
        assert (np.abs(lazy["loss"] - limit["loss"]) <= allowance).all(), name
