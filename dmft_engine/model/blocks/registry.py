"""Blocks by their names in JSON."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from dmft_engine.model.blocks.base import Block, Signal
from dmft_engine.weights.builder import Builder, Neurons
from dmft_schema import blocks

BLOCKS: dict[str, type[Block]] = {}
"""Name -> class. One entry here, and one model in dmft_schema/blocks.py, adds one."""


def maker_of(model: Any) -> type[Block]:
    """The class of the block that a request's model names.

    A model from outside these packages brings its own, as its attribute `engine`, or is its own `forward`.
    """
    known = BLOCKS.get(model.block)
    return getattr(model, "engine", Weightless) if known is None else known


class Weightless:
    """A block whose model says itself what it makes of a field."""

    makes_neurons: ClassVar[bool] = False

    def __init__(self, model: blocks.Block, builder: Builder, incoming: Signal, into: Neurons | None) -> None:
        self._model = model
        self._positions = incoming.shape.positions
        self.outgoing = Signal(model.shape_after(incoming.shape), incoming.neurons)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self._model.forward(x.unflatten(1, (-1, *self._positions)))
        return made.flatten(1, -2)
