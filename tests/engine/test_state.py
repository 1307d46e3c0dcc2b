"""State is a value: weights that are restored go on, in another process, bit for bit as they would have."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dmft_engine import Problem
from dmft_engine.model.activations import ACTIVATIONS
from dmft_engine.model.networks import ARCHITECTURES, propagate
from dmft_engine.training.optimisers import Sgd
from dmft_engine.weights.initialisation import dense_weights, revealed_weights
from dmft_engine.weights.weights import Weights
from tests.problems import request

ROOT = Path(__file__).parents[2]
STEPS = 6

NETWORKS: dict[str, dict[str, Any]] = {
    "tanh": {"depth": 3},
    "one hidden layer": {"depth": 1},
    "relu": {"depth": 2, "activation": "relu"},
    "residual, biases": {"depth": 3, "architecture": "residual", "bias_scale": 0.3},
}
RULES = ("backpropagation", "feedback_alignment", "direct_feedback_alignment")
OPTIMISERS = {"plain": Sgd(0.0, 0.0), "momentum and decay": Sgd(0.7, 0.01)}


def problem(network: str, rule: str) -> Problem:
    inputs = np.random.default_rng(0).standard_normal((5, 4))
    data = {"inputs": inputs.tolist(), "targets": [1, -1, 1, 1, -1]}
    training = {"steps": STEPS, "backward_rule": rule}
    return Problem.from_request(request(data, network=NETWORKS[network], training=training))


def revealed(given: Problem) -> Weights:
    return revealed_weights(given, 2, 512, 0.02, 3, torch.float32, "cpu", True)


def dense(given: Problem) -> Weights:
    return dense_weights(given, 20, range(2), 3, torch.float32, "cpu")


MAKERS: dict[str, Callable[[Problem], Weights]] = {"limit": revealed, "network": dense}


def advance(given: Problem, weights: Weights, optimiser: Sgd, steps: range) -> list[Tensor]:
    """The output before each of the steps."""
    forward = ARCHITECTURES[given.network.architecture].forward
    targets = torch.tensor(given.data.targets, dtype=torch.float32)
    outputs = []
    with torch.no_grad():
        for _ in steps:
            fields = propagate(forward, ACTIVATIONS[given.network.activation], weights, given.data.points)
            outputs.append(fields.output)
            errors = targets - fields.output / weights.layers[0].samples
            weights.update(fields, 0.1 * errors.mT, optimiser)
    return outputs


def finish(network: str, rule: str, maker: str, optimiser: str, saved: str, out: str) -> None:
    """What another process does: make the weights anew, restore them, go on to the end."""
    kept = torch.load(saved, weights_only=True)
    given = problem(network, rule)
    weights = MAKERS[maker](given)
    weights.restore(kept["weights"])
    torch.save(advance(given, weights, OPTIMISERS[optimiser], range(kept["step"], STEPS)), out)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("network", NETWORKS)
def test_restored_weights_go_on_bit_for_bit(network: str, rule: str, maker: str, optimiser: str) -> None:
    if "residual" in network and rule == "direct_feedback_alignment":
        pytest.skip("the two exclude each other")
    given, rule_of_step = problem(network, rule), OPTIMISERS[optimiser]
    whole = advance(given, MAKERS[maker](given), rule_of_step, range(STEPS))
    for stop in (0, 1, 4):
        weights = MAKERS[maker](given)
        advance(given, weights, rule_of_step, range(stop))
        state = weights.state()
        advance(given, weights, rule_of_step, range(2))  # What was taken does not move with them.
        again = MAKERS[maker](given)
        again.restore(state)
        for before, after in zip(
            whole[stop:], advance(given, again, rule_of_step, range(stop, STEPS)), strict=True
        ):
            assert torch.equal(before, after), stop


@pytest.mark.slow
@pytest.mark.parametrize("maker", MAKERS)
def test_another_process_goes_on_from_a_file(maker: str, tmp_path: Path) -> None:
    network, rule, optimiser, stop = "tanh", "backpropagation", "momentum and decay", 3
    given = problem(network, rule)
    whole = advance(given, MAKERS[maker](given), OPTIMISERS[optimiser], range(STEPS))
    weights = MAKERS[maker](given)
    advance(given, weights, OPTIMISERS[optimiser], range(stop))
    saved, out = tmp_path / "state.pt", tmp_path / "rest.pt"
    torch.save({"step": stop, "weights": weights.state()}, saved)
    arguments = (network, rule, maker, optimiser, str(saved), str(out))
    # Threads as here: the order of a sum may hang on their number.
    code = (
        f"import torch; torch.set_num_threads({torch.get_num_threads()}); "
        f"from tests.engine.test_state import finish; finish(*{arguments!r})"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    rest = torch.load(out, weights_only=True)
    assert all(torch.equal(before, after) for before, after in zip(whole[stop:], rest, strict=True))
