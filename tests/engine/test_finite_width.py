"""Dense networks against the same networks written plainly and trained by torch.optim.SGD."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, softplus

from dmft_engine import Problem
from dmft_engine.weights.initialisation import DENSE_RECORD_TOLERANCE, dense_weights
from dmft_schema.memory import CHUNK_BYTES
from tests.accuracy import Accuracy
from tests.problems import request, run

WIDTH, STEPS, POINTS = 30, 25, 4
GENERATOR = np.random.default_rng(8)
INPUTS = GENERATOR.normal(size=(POINTS, 6)).tolist()
SIGNS = [1.0, -1.0, -1.0, 1.0]
ONE_HOT = np.eye(3)[[0, 1, 2, 0]].tolist()

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "momentum": {"training": {"momentum": 0.7}},
    "weight decay": {"training": {"weight_decay": 0.2}},
    "both": {"training": {"weight_decay": 0.2, "momentum": 0.5}},
    "logistic": {"training": {"loss": "logistic", "learning_rate": 0.5}},
    "hinge": {"training": {"loss": "hinge"}},
    "cross-entropy": {"training": {"loss": "cross_entropy", "learning_rate": 0.5}, "targets": ONE_HOT},
    "several outputs": {"targets": ONE_HOT},
    "biases": {"network": {"bias_scale": 0.4}},
    "scales": {"network": {"weight_scales": [1.3, 0.7, 1.1]}},
    "residual": {"network": {"architecture": "residual", "branch_scale": 1.7}},
    "residual with all": {
        "network": {
            "architecture": "residual",
            "bias_scale": 0.4,
            "weight_scales": [1.3, 0.7, 1.1],
        },
        "training": {"weight_decay": 0.1, "momentum": 0.3},
    },
    "all": {
        "network": {"bias_scale": 0.4, "weight_scales": [1.3, 0.7, 1.1]},
        "training": {"weight_decay": 0.1, "momentum": 0.3, "loss": "cross_entropy"},
        "targets": ONE_HOT,
    },
}


def mean_loss(name: str, f: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Of which gradient descent takes the gradient (theory section 2, options)."""
    match name:
        case "mse":
            return ((f - y) ** 2 / 2).sum(1).mean()
        case "logistic":
            return softplus(-y * f).sum(1).mean()
        case "hinge":
            return torch.relu(1 - y * f).sum(1).mean()
        case "cross_entropy":
            return cross_entropy(f, y)
    raise AssertionError(name)


def sections(options: dict[str, Any]) -> dict[str, Any]:
    return {
        "data": {"inputs": INPUTS, "targets": options.get("targets", SIGNS)},
        "network": {"depth": 2, "activation": "tanh", "gamma0": 0.8} | options.get("network", {}),
        "training": {"steps": STEPS, "learning_rate": 0.2} | options.get("training", {}),
        "method": {"name": "finite_width", "width": WIDTH, "ensemble": 1, "seed": 3, "dtype": "float64"},
    }


def by_torch_optim(options: dict[str, Any]) -> np.ndarray:
    """Predictions [T, P, C] of the network with the same initial weights."""
    problem = Problem.from_request(request(**sections(options)))
    network, training = problem.network, problem.training
    drawn = dense_weights(problem, WIDTH, range(1), 3, torch.float64, "cpu")
    factor = drawn.input._factor[0]
    w0 = drawn.input._weights.value[0].clone().requires_grad_()
    w1 = (drawn.hidden[0]._scaled.value[0] * WIDTH**0.5).clone().requires_grad_()  # type: ignore[attr-defined]
    w2 = drawn.readout._weights.value[0].clone().requires_grad_()
    biases = [bias._weights.value[0].clone().requires_grad_() for bias in drawn.biases]
    sigma = network.weight_scales or [1.0] * 3
    residual = network.architecture == "residual"
    branch = network.branch_scale / 2**0.5 if residual else 1.0
    rate = training.learning_rate * network.gamma0**2 * WIDTH
    optimiser = torch.optim.SGD(
        [w0, w1, w2, *biases],
        lr=rate,
        momentum=training.momentum,
        weight_decay=training.learning_rate * training.weight_decay / rate,
    )
    targets = torch.tensor(problem.data.targets)
    at_start = None
    predictions = []
    for _ in range(STEPS):
        h = sigma[0] * factor @ w0 + (network.bias_scale * biases[0] if biases else 0)
        into = branch * sigma[1] * torch.tanh(h) @ w1.T / WIDTH**0.5
        h = (h if residual else 0) + into + (network.bias_scale * biases[1] if biases else 0)
        f = sigma[2] * torch.tanh(h) @ w2.T / (network.gamma0 * WIDTH)
        if training.weight_decay == 0:
            at_start = f.detach() if at_start is None else at_start
            f = f - at_start
        predictions.append(f.detach().numpy())
        optimiser.zero_grad()
        mean_loss(training.loss, f, targets).backward()
        optimiser.step()
    return np.array(predictions)


@pytest.mark.parametrize("name", OPTIONS)
def test_training_is_what_torch_optim_does(name: str, accuracy: Accuracy) -> None:
    result = run(**sections(OPTIONS[name])).arrays
    expected = by_torch_optim(OPTIONS[name])
    difference = result["predictions"].reshape(expected.shape) - expected
    accuracy(f"`finite_width`, {name}: predictions", "the same network by torch.optim.SGD", difference)
    np.testing.assert_allclose(difference, 0, atol=1e-12)


@pytest.mark.parametrize("rule", ["feedback_alignment", "direct_feedback_alignment"])
def test_feedback_rules_written_out(rule: str, accuracy: Accuracy) -> None:
    """Two layers by hand: errors go back by fixed matrices, everything forward is trained."""
    given = sections({"training": {"backward_rule": rule}, "targets": ONE_HOT})
    problem = Problem.from_request(request(**given))
    rate, gamma0 = 0.2, 0.8
    drawn = dense_weights(problem, WIDTH, range(1), 3, torch.float64, "cpu")
    factor = drawn.input._factor[0]
    w0, w2 = drawn.input._weights.value[0], drawn.readout._weights.value[0]
    w1 = drawn.hidden[0]._scaled.value[0]  # type: ignore[attr-defined]
    for feedback in drawn.feedback.values():
        feedback.apply(torch.zeros(1, 1, WIDTH, dtype=torch.float64))
    fixed = {layer: feedback._vectors[0] for layer, feedback in drawn.feedback.items()}  # type: ignore[index]
    targets = torch.tensor(problem.data.targets)
    predictions = []
    for _ in range(STEPS):
        first = torch.tanh(factor @ w0)
        second = torch.tanh(first @ w1.T)
        output = second @ w2.T / (gamma0 * WIDTH)
        predictions.append(output - predictions[0] if predictions else output)
        f = predictions[-1] if len(predictions) > 1 else torch.zeros_like(output)
        weighted = gamma0 * rate / POINTS * (targets - f)
        g2 = (1 - second**2)[:, None] * fixed[1]  # [P, C, N]
        if rule == "feedback_alignment":
            z1 = g2 @ drawn.hidden[0]._feedback[0]  # type: ignore[attr-defined]
        else:
            z1 = fixed[0].expand(POINTS, -1, -1)
        g1 = (1 - first**2)[:, None] * z1
        w2 = w2 + weighted.T @ second
        w1 = w1 + torch.einsum("pc,pcn,pm->nm", weighted, g2, first) / WIDTH
        w0 = w0 + torch.einsum("pc,pcn,pk->kn", weighted, g1, factor)
    predictions[0] = torch.zeros_like(predictions[0])
    result = run(**given)
    difference = result.arrays["predictions"] - torch.stack(predictions).numpy()
    accuracy(f"`finite_width`, {rule}: predictions", "the same network written out", difference)
    np.testing.assert_allclose(difference, 0, atol=1e-12)
    assert "ntk" not in result.arrays
    assert "ntk is left out" in result.diagnostics.notes[0]


def test_batches_are_a_fixed_order_of_whole_batches() -> None:
    """Two points a batch: over an epoch of two steps every point is used once."""
    from dmft_engine.model.recipe import Recipe
    from dmft_schema import Training

    recipe = Recipe(Training(batch_size=2, batch_seed=5, learning_rate=0.3), 5)
    weights = [recipe.weighting(step, torch.zeros(1)) for step in range(6)]
    for step in (0, 2, 4):
        used = weights[step] + weights[step + 1]
        assert sorted(used.tolist()) == pytest.approx([0.0, 0.15, 0.15, 0.15, 0.15])
    again = Recipe(Training(batch_size=2, batch_seed=5, learning_rate=0.3), 5)
    assert torch.equal(again.weighting(0, torch.zeros(1)), weights[0])
    other = Recipe(Training(batch_size=2, batch_seed=6, learning_rate=0.3), 5)
    assert any(not torch.equal(other.weighting(s, torch.zeros(1)), weights[s]) for s in range(6))


def test_schedules_end_where_they_should() -> None:
    from dmft_engine.model.recipe import Recipe
    from dmft_schema import Training

    for schedule, middle in (("constant", 1.0), ("linear", 0.5), ("cosine", 0.5)):
        recipe = Recipe(Training(schedule=schedule, learning_rate=2.0, steps=10), 3)
        assert recipe.rates[0] == 2.0
        assert recipe.rates[5] == pytest.approx(2.0 * middle)
        assert recipe.times[-1] == pytest.approx(recipe.rates[:-1].sum())


@pytest.mark.parametrize("targets", [None, ONE_HOT], ids=["one output", "three outputs"])
def test_ensemble_in_pieces_is_the_same_ensemble(
    monkeypatch: pytest.MonkeyPatch, targets: list[list[float]] | None
) -> None:
    """Members that do not fit side by side take turns; no array of the result changes."""
    given = sections({"targets": targets} if targets else {})
    given["method"] = {"name": "finite_width", "width": 40, "ensemble": 5, "dtype": "float64"}
    given["outputs"] = {"field_times": [0, 2, -1], "field_neurons": 64}
    whole = run(**given)
    monkeypatch.setitem(CHUNK_BYTES, "finite_width", 100_000)
    pieces = run(**given)
    assert set(pieces.arrays) == set(whole.arrays)
    assert whole.arrays["fields_h_1"].shape[-1] == 64
    for name, array in whole.arrays.items():
        # Kernels at two times are known to what a basis leaves out of the earlier field.
        in_bases = name.startswith(("phi_", "g_"))
        atol = DENSE_RECORD_TOLERANCE * np.abs(array).max() if in_bases else 1e-9
        np.testing.assert_allclose(pieces.arrays[name], array, rtol=1e-9, atol=atol, err_msg=name)
    same = {"samples", "replicas", "seed", "notes", "computed_in"}
    assert pieces.diagnostics.model_dump(include=same) == whole.diagnostics.model_dump(include=same)
