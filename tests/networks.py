"""Networks of blocks for tests: one for each block and option, small, with data that they take."""

from __future__ import annotations

from typing import Any

import numpy as np

DENSE: dict[str, Any] = {"block": "dense"}
TANH: dict[str, Any] = {"block": "activation", "name": "tanh"}
READOUT: dict[str, Any] = {"block": "readout", "positions": "mean"}


def _readout(positions: str) -> dict[str, Any]:
    return {"block": "readout", "positions": positions}


def _convolution(**options: Any) -> list[dict[str, Any]]:
    filters = {"block": "convolution", "size": 2} | options
    return [filters, TANH, filters, TANH, READOUT]


def _normalise(**options: Any) -> list[dict[str, Any]]:
    return [DENSE, {"block": "normalise"} | options, TANH, DENSE, TANH, READOUT]


def _attention(**options: Any) -> list[dict[str, Any]]:
    attention = {"block": "attention", "head_size": 2} | options
    return [DENSE, {"block": "residual", "branch": [attention]}, TANH, READOUT]


SEQUENCES: dict[str, list[dict[str, Any]]] = {
    "dense": [DENSE, TANH, DENSE, TANH, READOUT],
    "dense scaled": [
        DENSE | {"weight_scale": 0.7, "bias_scale": 0.4}, TANH, DENSE | {"weight_scale": 1.3}, TANH,
        READOUT | {"weight_scale": 0.8},
    ],
    "convolution same": _convolution(),
    "convolution valid": _convolution(padding="valid", size=2),
    "convolution circular": _convolution(padding="circular"),
    "convolution stride": _convolution(stride=2, size=3),
    "convolution scaled": _convolution(weight_scale=1.2, bias_scale=0.3),
    "normalise layer": _normalise(),
    "normalise rms": _normalise(kind="rms"),
    "normalise learned": _normalise(learned=True),
    "pool": [DENSE, TANH, {"block": "pool", "size": 2}, DENSE, TANH, READOUT],
    "attention": _attention(),
    "attention linear": _attention(scores="linear"),
    "attention causal": _attention(causal=True),
    "attention wide": _attention(head_size=4),
    "residual": [
        DENSE, {"block": "residual", "branch": [TANH, DENSE, TANH, DENSE], "scale": 0.5}, TANH, READOUT,
    ],
    "recurrence": [{"block": "recurrence", "weight_scale": 0.9}, TANH, _readout("last")],
    "readout flatten": [DENSE, TANH, DENSE, TANH, _readout("flatten")],
    "readout last": [DENSE, TANH, DENSE, TANH, _readout("last")],
}  # fmt: skip
"""Compositions that take sequences, by what they are there to try."""

IMAGES: dict[str, list[dict[str, Any]]] = {
    "convolution of images": _convolution(),
    "pool of images": [DENSE, TANH, {"block": "pool", "size": 2}, DENSE, TANH, READOUT],
    "attention between pixels": _attention(),
}


def data_of(name: str, targets: Any = (1.0, -1.0, 0.5)) -> dict[str, Any]:
    """Data for the composition of this name: three training points and two test points."""
    shape = (2, 2, 2) if name in IMAGES else (3, 2)
    inputs = np.random.default_rng(11).normal(size=(5, *shape))
    return {
        "inputs": inputs[:3].tolist(),
        "targets": list(targets),
        "test_inputs": inputs[3:].tolist(),
    }


COMPOSITIONS = SEQUENCES | IMAGES


def network_of(name: str, **options: Any) -> dict[str, Any]:
    return {"architecture": "composed", "layers": COMPOSITIONS[name], **options}
