"""Means over windows of positions, side by side; what fills no window is left out."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from dmft_engine.model.blocks.base import Signal
from dmft_engine.weights.builder import Builder, Neurons
from dmft_schema.blocks import PoolBlock


class Pool:
    makes_neurons: ClassVar[bool] = False

    def __init__(self, model: PoolBlock, builder: Builder, incoming: Signal, into: Neurons | None) -> None:
        self._size = model.size
        self._positions = incoming.shape.positions
        self.outgoing = Signal(model.shape_after(incoming.shape), incoming.neurons)

    def forward(self, x: Tensor) -> Tensor:
        # [R, P, *positions, S]
        x = x.unflatten(1, (-1, *self._positions))
        for axis, after in enumerate(self.outgoing.shape.positions, start=2):
            whole = x.narrow(axis, 0, after * self._size)
            x = whole.unflatten(axis, (after, self._size)).mean(axis + 1)
        return x.flatten(1, -2)
