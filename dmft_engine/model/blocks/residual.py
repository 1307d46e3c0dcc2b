"""h + scale * branch(h), both of the same neurons."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from dmft_engine.model.blocks.base import Signal
from dmft_engine.model.blocks.chain import Chain
from dmft_engine.weights.builder import Builder, Neurons
from dmft_schema.blocks import ResidualBlock


class Residual:
    makes_neurons: ClassVar[bool] = False

    def __init__(
        self, model: ResidualBlock, builder: Builder, incoming: Signal, into: Neurons | None
    ) -> None:
        self._scale = model.scale
        self._branch = Chain(model.branch, builder, incoming, into=incoming.population)
        self.outgoing = Signal(incoming.shape, incoming.neurons)

    def forward(self, x: Tensor) -> Tensor:
        return x + self._scale * self._branch.forward(x)
