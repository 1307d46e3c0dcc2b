"""Networks block by block, as `Client.solve(network=...)` takes them.

from dmft_client import nn
network = nn.serial(nn.conv(3), nn.act("tanh"), nn.conv(3), nn.act("tanh"), nn.readout("mean"))

Each function makes one block of dmft_schema.blocks, where their equations are. All raise InvalidRequest for
an option that the server would refuse.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from dmft_client.errors import InvalidRequest
from dmft_schema.blocks import (
    ActivationBlock,
    AttentionBlock,
    Block,
    ConvolutionBlock,
    DenseBlock,
    NormaliseBlock,
    PoolBlock,
    ReadoutBlock,
    RecurrenceBlock,
    ResidualBlock,
)
from dmft_schema.names import ActivationName, NormaliseName, PaddingName, PositionsName, ScoresName
from dmft_schema.refusal import problem_of

Layer = Block | Sequence["Layer"]
"""A block, or several one after the other."""


def serial(*layers: Layer) -> list[Block]:
    """One after the other. What serial() made may stand in another serial() or residual()."""
    return list(_flat(layers))


def dense(*, weight_scale: float = 1.0, bias_scale: float = 0.0) -> Block:
    """W x / sqrt(fan-in) at each position."""
    return _made(DenseBlock, weight_scale=weight_scale, bias_scale=bias_scale)


def conv(
    size: int = 3,
    stride: int = 1,
    padding: PaddingName = "same",
    *,
    weight_scale: float = 1.0,
    bias_scale: float = 0.0,
) -> Block:
    """A convolution with filters of `size` along each axis of the data's positions."""
    options = {"size": size, "stride": stride, "padding": padding}
    return _made(ConvolutionBlock, **options, weight_scale=weight_scale, bias_scale=bias_scale)


def act(name: ActivationName = "tanh") -> Block:
    """An activation, neuron by neuron."""
    return _made(ActivationBlock, name=name)


def norm(kind: NormaliseName = "layer", learned: bool = False) -> Block:
    """Normalisation over neurons: "layer" or "rms"."""
    return _made(NormaliseBlock, kind=kind, learned=learned)


def pool(size: int = 2) -> Block:
    """Means over windows of `size` positions along each axis."""
    return _made(PoolBlock, size=size)


def attention(head_size: int = 2, scores: ScoresName = "sqrt", causal: bool = False) -> Block:
    """Softmax attention between positions, with heads of `head_size` neurons."""
    return _made(AttentionBlock, head_size=head_size, scores=scores, causal=causal)


def residual(*branch: Layer, scale: float = 1.0) -> Block:
    """h + scale * branch(h)."""
    return _made(ResidualBlock, branch=serial(*branch), scale=scale)


def recurrence(activation: ActivationName = "tanh", *, weight_scale: float = 1.0) -> Block:
    """h_tau = W phi(h_{tau-1}) / sqrt(N) + the input at tau."""
    return _made(RecurrenceBlock, activation=activation, weight_scale=weight_scale)


def readout(positions: PositionsName = "mean", *, weight_scale: float = 1.0) -> Block:
    """f, from the mean of all positions, from each of them ("flatten") or the last; ends a network."""
    return _made(ReadoutBlock, positions=positions, weight_scale=weight_scale)


def _flat(layers: Sequence[Any]) -> Iterator[Block]:
    for layer in layers:
        if isinstance(layer, Block):
            yield layer
        elif isinstance(layer, list | tuple):
            yield from _flat(layer)
        else:
            raise TypeError(f"a layer is a block that dmft_client.nn has made; got {layer!r}")


def _made(model: type[Block], **options: Any) -> Block:
    try:
        return model(**options)
    except ValidationError as error:
        raise InvalidRequest(problem_of(error)) from None
