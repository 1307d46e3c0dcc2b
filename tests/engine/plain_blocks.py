"""Composed networks written with torch.nn.functional alone: what the engine's blocks are judged by.

Weights are a list of tensors in the order in which blocks have them, each of unit variance at initialisation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

PHI = {
    "linear": lambda h: h,
    "tanh": torch.tanh,
    "relu": functional.relu,
    "erf": torch.erf,
    "gelu": functional.gelu,
}
Block = dict[str, Any]


def output(blocks: Sequence[Block], x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """gamma0 N f, [P, C], of inputs [P, *positions, D]."""
    remaining = iter(weights)
    h = _chain(blocks, x, remaining)
    assert next(remaining, None) is None, "a weight was not used"
    return h


def _chain(blocks: Sequence[Block], x: Tensor, weights: Iterator[Tensor], data: bool = True) -> Tensor:
    for index, block in enumerate(blocks):
        x = BLOCKS[block["block"]](block, x, weights, data and index == 0)
    return x


def _bias(block: Block, h: Tensor, weights: Iterator[Tensor]) -> Tensor:
    scale = block.get("bias_scale", 0.0)
    return h + scale * next(weights).squeeze(0) if scale else h


def _dense(block: Block, x: Tensor, weights: Iterator[Tensor], data: bool) -> Tensor:
    matrix = next(weights).mT if data else next(weights)
    h = functional.linear(x, matrix) * block.get("weight_scale", 1.0) / matrix.shape[1] ** 0.5
    return _bias(block, h, weights)


def _convolution(block: Block, x: Tensor, weights: Iterator[Tensor], data: bool) -> Tensor:
    size, stride, padding = block.get("size", 3), block.get("stride", 1), block.get("padding", "same")
    axes, channels = x.ndim - 2, x.shape[-1]
    matrix = next(weights).mT if data else next(weights)
    filters = matrix.reshape(matrix.shape[0], channels, *[size] * axes)
    images = x.movedim(-1, 1)
    if padding != "valid":
        before = (size - 1) // 2
        mode = "constant" if padding == "same" else "circular"
        images = functional.pad(images, [before, size - 1 - before] * axes, mode=mode)
    convolve = functional.conv1d if axes == 1 else functional.conv2d
    h = convolve(images, filters, stride=stride).movedim(1, -1)
    h = h * block.get("weight_scale", 1.0) / (channels * size**axes) ** 0.5
    return _bias(block, h, weights)


def _activation(block: Block, x: Tensor, weights: Iterator[Tensor], data: bool) -> Tensor:
    return PHI[block["name"]](x)


def _normalise(block: Block, x: Tensor, weights: Iterator[Tensor], data: bool) -> Tensor:
    learned = block.get("learned", False)
    gain = next(weights).squeeze(0) if learned else None
    if block["kind"] == "rms":
        return functional.rms_norm(x, x.shape[-1:], gain, eps=0.0)
    offset = next(weights).squeeze(0) if learned else None
    return functional.layer_norm(x, x.shape[-1:], gain, offset, eps=0.0)


def _pool(block: Block, x: Tensor, weights: Iterator[Tensor], data: bool) -> Tensor:
    pool = functional.avg_pool1d if x.ndim == 3 else functional.avg_pool2d
    return pool(x.movedim(-1, 1), block.get("size", 2)).movedim(1, -1)


def _attention(block: Block, x: Tensor, weights: Iterator[Tensor], data: bool) -> Tensor:
    neurons, size = x.shape[-1], block.get("head_size", 2)
    tokens = x.flatten(1, -2)
    query, key, value = (
        # [P, heads, tokens, size]
        (functional.linear(tokens, next(weights)) / neurons**0.5).unflatten(-1, (-1, size)).transpose(1, 2)
        for _ in range(3)
    )
    scale = 1 / size if block.get("scores") == "linear" else 1 / math.sqrt(size)
    mixed = functional.scaled_dot_product_attention(
        query, key, value, is_causal=block.get("causal", False), scale=scale
    )
    merged = mixed.transpose(1, 2).flatten(2)
    return (functional.linear(merged, next(weights)) / neurons**0.5).reshape(x.shape)


def _residual(block: Block, x: Tensor, weights: Iterator[Tensor], data: bool) -> Tensor:
    return x + block.get("scale", 1.0) * _chain(block["branch"], x, weights, data=False)


def _recurrence(block: Block, x: Tensor, weights: Iterator[Tensor], data: bool) -> Tensor:
    if data:
        x = _dense({}, x, weights, data=True)
    matrix, phi = next(weights), PHI[block.get("activation", "tanh")]
    states = [x[:, 0]]
    for now in x.unbind(1)[1:]:
        carried = functional.linear(phi(states[-1]), matrix) / matrix.shape[1] ** 0.5
        states.append(now + block.get("weight_scale", 1.0) * carried)
    return torch.stack(states, dim=1)


def _readout(block: Block, x: Tensor, weights: Iterator[Tensor], data: bool) -> Tensor:
    vectors, rows = next(weights), x.flatten(1, -2) if x.ndim > 2 else x[:, None]
    positions = block.get("positions", "mean")
    if positions == "flatten":
        read = rows.flatten(1) / rows.shape[1] ** 0.5
    else:
        read = rows.mean(1) if positions == "mean" else rows[:, -1]
    return block.get("weight_scale", 1.0) * functional.linear(read, vectors)


BLOCKS = {
    "dense": _dense,
    "convolution": _convolution,
    "activation": _activation,
    "normalise": _normalise,
    "pool": _pool,
    "attention": _attention,
    "residual": _residual,
    "recurrence": _recurrence,
    "readout": _readout,
}
