"""f from all positions of a point: their mean, each by its own vectors, or the last (theory section 9)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from dmft_engine.model.blocks.base import Signal
from dmft_engine.weights.builder import Builder, Neurons
from dmft_schema.blocks import ReadoutBlock


class Readout:
    makes_neurons: ClassVar[bool] = False

    def __init__(self, model: ReadoutBlock, builder: Builder, incoming: Signal, into: Neurons | None) -> None:
        self._kind = model.positions
        self._positions = incoming.positions
        node = builder.node(incoming.population)
        each = self._kind == "flatten" or self._positions == 1
        self._site = builder.site(entry=node if each else None)
        self.part = builder.readout(node, model.weight_scale, self._positions if each else 1)
        self.outgoing = Signal(model.shape_after(incoming.shape), None)

    def forward(self, x: Tensor) -> Tensor:
        """gamma0 N f, [R, P, C]."""
        x = self._site.enter(x)
        if self._positions > 1 and self._kind != "flatten":
            by_position = x.unflatten(1, (-1, self._positions))
            x = by_position.mean(2) if self._kind == "mean" else by_position[:, :, -1]
        return self.part.forward(x)
