"""sigma_w W x / sqrt(fan-in) + sigma_b b, at each position (theory section 1)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from dmft_engine.model.blocks.base import Signal
from dmft_engine.weights.builder import Builder, Neurons
from dmft_engine.weights.linear import Linear
from dmft_schema.blocks import DenseBlock


class Dense:
    makes_neurons: ClassVar[bool] = True

    def __init__(self, model: DenseBlock, builder: Builder, incoming: Signal, into: Neurons | None) -> None:
        neurons = into or builder.neurons()
        self._linear = Linear(
            builder, incoming.neurons, neurons, builder.inputs(), model.weight_scale, model.bias_scale
        )
        self.outgoing = Signal(model.shape_after(incoming.shape), neurons, self._linear.exit)

    def forward(self, x: Tensor) -> Tensor:
        return self._linear.forward(x)
