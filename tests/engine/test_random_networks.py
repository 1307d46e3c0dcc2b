"""Networks composed at random: finite ones against torch.nn, the limit against ensembles of finite ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dmft_schema.network import ComposedNetwork
from dmft_schema.shapes import Shape, ShapeError
from tests.engine.test_blocks import check_against_torch
from tests.problems import run

Layers = list[dict[str, Any]]
SHAPES = ((7,), (3, 5), (4, 4, 2))
MOST_BLOCKS = 6
SEEDS = range(50)


def draw_block(rng: np.random.Generator, inner: bool = False) -> dict[str, Any]:
    """Any block but a readout, with any of its options."""
    scales = {"weight_scale": float(rng.choice([1.0, 1.3])), "bias_scale": float(rng.choice([0.0, 0.5]))}
    blocks: list[dict[str, Any]] = [
        {"block": "dense"} | scales,
        {"block": "convolution", "size": int(rng.integers(1, 4)), "stride": int(rng.choice([1, 1, 2]))}
        | {"padding": str(rng.choice(["same", "valid", "circular"]))}
        | scales,
        {"block": "activation", "name": str(rng.choice(["tanh", "erf", "gelu", "relu"]))},
        {"block": "activation", "name": "tanh"},
        {"block": "normalise", "kind": str(rng.choice(["rms", "layer"])), "learned": bool(rng.integers(2))},
        {"block": "pool", "size": 2},
        {"block": "attention", "head_size": int(rng.choice([1, 2, 4])), "causal": bool(rng.integers(2))}
        | {"scores": str(rng.choice(["sqrt", "linear"]))},
        {"block": "recurrence", "activation": "tanh", "weight_scale": 0.9},
    ]
    if not inner:
        branch = [draw_block(rng, inner=True) for _ in range(int(rng.integers(1, 3)))]
        blocks += 2 * [{"block": "residual", "branch": branch, "scale": 0.6}]
    return blocks[rng.integers(len(blocks))]


def draw_network(seed: int) -> tuple[tuple[int, ...], Layers]:
    """A shape and up to six blocks and a readout that take it: what does not fit is drawn again."""
    rng = np.random.default_rng(seed)
    shape = SHAPES[rng.integers(len(SHAPES))]
    readout = {"block": "readout", "positions": str(rng.choice(["mean", "flatten", "last"]))}
    if readout["positions"] == "last" and len(shape) == 3:
        readout["positions"] = "mean"
    layers: Layers = []
    wanted = int(rng.integers(2, MOST_BLOCKS + 1))
    while len(layers) < wanted:
        longer = [*layers, draw_block(rng)]
        try:
            network = ComposedNetwork.model_validate(
                {"architecture": "composed", "layers": [*longer, readout]}
            )
            network.check_shape(Shape(shape[:-1], shape[-1]))
        except (ShapeError, ValueError):
            continue
        layers = longer
    return shape, [*layers, readout]


@pytest.mark.parametrize("seed", SEEDS)
def test_finite_networks_are_those_of_torch(seed: int) -> None:
    """Forward, NTK and trained with momentum and decay, to rounding."""
    check_against_torch(*draw_network(seed))


def test_what_is_drawn_holds_every_block() -> None:
    def names(layers: Layers) -> set[str]:
        inner = (names(block["branch"]) for block in layers if "branch" in block)
        return {block["block"] for block in layers}.union(*inner)

    found = set().union(*(names(draw_network(seed)[1]) for seed in SEEDS))
    kinds = "dense convolution activation normalise pool attention residual recurrence readout"
    assert found == set(kinds.split())


def deviation(seed: int) -> tuple[float, int]:
    """Of the limit from finite networks of width N, extrapolated in 1/N: largest |z| of predictions, and how
    many it is the largest of."""
    shape, layers = draw_network(seed)
    rng = np.random.default_rng([seed, 1])
    data = {"inputs": rng.normal(size=(4, *shape)).tolist(), "targets": [1.0, -1.0, 1.0, -1.0]}
    shared: dict[str, Any] = {
        "network": {"architecture": "composed", "layers": layers, "gamma0": 1.0},
        "training": {"steps": 8, "learning_rate": 0.15},
        "outputs": {"kernels": []},
    }
    limit = {"name": "dmft", "tolerance": 0.05}
    found = run(data, method=limit, **shared).arrays
    wide, narrow = (
        run(data, method={"name": "finite_width", "width": n, "ensemble": count}, **shared).arrays
        for n, count in ((256, 16), (128, 32))
    )
    error = "predictions_standard_error"
    expected = 2 * wide["predictions"] - narrow["predictions"]
    variance = (2 * wide[error]) ** 2 + narrow[error] ** 2 + found[error] ** 2
    z = (found["predictions"] - expected)[1:] / np.sqrt(variance[1:])
    return float(np.abs(z).max()), z.size


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_the_limit_is_that_of_finite_networks(seed: int) -> None:
    largest, _ = deviation(seed)
    assert largest < 5
