"""Kernels of random compositions by neural-tangents, the judge of tests/engine/test_block_kernels.py.

It shares no code with this project and needs an environment of its own:

    python3.11 -m venv /tmp/nt
    /tmp/nt/bin/pip install neural-tangents==0.6.5 "jax[cpu]==0.4.23" numpy==1.26.4 scipy==1.11.4
    /tmp/nt/bin/python benchmarks/judge_by_neural_tangents.py tests/data/neural_tangents.json

Its NTK parameterisation is ours: W sigma_w / sqrt(fan-in), fan-in C k^2 of a convolution, biases sigma_b.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import jax
import numpy as np
from neural_tangents import stax

CASES = 24
ACTIVATIONS = {"erf": stax.Erf, "relu": stax.Relu, "sin": stax.Sin, "gelu": stax.Gelu}


def matrix(block: dict[str, Any]) -> dict[str, Any]:
    return {"W_std": block["weight_scale"], "b_std": block["bias_scale"] or None}


def layer(block: dict[str, Any], axes: int) -> Any:
    """The layer of stax that a block stands for, on points with this many axes of positions."""
    match block["block"]:
        case "dense":
            return stax.Dense(8, **matrix(block))
        case "convolution":
            size, stride = (block["size"],) * axes, (block["stride"],) * axes
            return stax.Conv(8, size, stride, block["padding"].upper(), **matrix(block))
        case "activation":
            return ACTIVATIONS[block["name"]]()
        case "normalise":
            return stax.LayerNorm()
        case "pool":
            return stax.AvgPool((block["size"],) * axes, (block["size"],) * axes)
        case "residual":
            # Scales of branches are in their last matrix.
            branch = stax.serial(*(layer(inner, axes) for inner in block["branch"]))
            return stax.serial(stax.FanOut(2), stax.parallel(stax.Identity(), branch), stax.FanInSum())
        case "readout":
            before = stax.GlobalAvgPool() if block["positions"] == "mean" else stax.Flatten()
            return stax.serial(before, stax.Dense(1, W_std=block["weight_scale"]))
    raise AssertionError(block)


def drawn(generator: np.random.Generator, axes: int) -> list[dict[str, Any]]:
    """Blocks whose kernels close: every activation acts on a Gaussian field."""

    def scale(low: float, high: float) -> float:
        return round(float(generator.uniform(low, high)), 3)

    def weights() -> dict[str, Any]:
        return {"weight_scale": scale(0.6, 1.6), "bias_scale": float(generator.choice([0.0, 0.4]))}

    def act() -> dict[str, Any]:
        return {"block": "activation", "name": str(generator.choice(list(ACTIVATIONS)))}

    def mixing(keeps_shape: bool) -> dict[str, Any]:
        if generator.random() < 0.3:
            return {"block": "dense", **weights()}
        padding = str(
            generator.choice(["same", "circular"] if keeps_shape else ["same", "circular", "valid"])
        )
        # With stride 2 only where everyone pads alike.
        stride = 2 if padding == "valid" and generator.random() < 0.5 else 1
        size = int(generator.choice([2, 3] if padding == "valid" else [1, 3]))
        return {"block": "convolution", "size": size, "stride": stride, "padding": padding, **weights()}

    blocks = [mixing(False)]
    for _ in range(int(generator.integers(1, 4))):
        match str(generator.choice(["plain", "residual", "normalised", "pooled"])):
            case "plain":
                blocks += [act(), mixing(True)]
            case "residual":
                blocks.append({"block": "residual", "branch": [act(), mixing(True)]})
            case "normalised":
                blocks += [{"block": "normalise", "kind": "layer"}, act(), mixing(True)]
            case "pooled":
                # Once, and not behind a stride: circular padding needs as many positions as offsets.
                if not any(block["block"] == "pool" or block.get("stride") == 2 for block in blocks):
                    blocks += [act(), {"block": "pool", "size": 2}, mixing(True)]
    readout = {"block": "readout", "positions": str(generator.choice(["mean", "flatten"]))}
    return [*blocks, act(), readout | {"weight_scale": scale(0.6, 1.6)}]


def main(path: str) -> None:
    jax.config.update("jax_enable_x64", True)
    generator = np.random.default_rng(20)
    cases = []
    for index in range(CASES):
        axes = 1 + index % 2
        inputs = generator.normal(size=(4, *([10] if axes == 1 else [9, 10]), 2)).round(3)
        blocks = drawn(generator, axes)
        _, _, kernel = stax.serial(*(layer(block, axes) for block in blocks))
        found = kernel(inputs, inputs, ("nngp", "ntk"))
        cases.append(
            {
                "inputs": inputs.tolist(),
                "blocks": blocks,
                "nngp": np.asarray(found.nngp).tolist(),
                "ntk": np.asarray(found.ntk).tolist(),
            }
        )
    made = "benchmarks/judge_by_neural_tangents.py, neural-tangents 0.6.5, jax 0.4.23, float64"
    with open(path, "w") as file:
        json.dump({"made_by": made, "cases": cases}, file)


if __name__ == "__main__":
    main(sys.argv[1])
