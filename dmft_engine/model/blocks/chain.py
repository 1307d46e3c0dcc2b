"""Blocks one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dmft_engine.model.blocks.base import Block, Signal
from dmft_engine.model.blocks.registry import maker_of
from dmft_engine.weights.builder import Builder, Neurons


class Chain:
    """A list of blocks as one.

    Attributes:
        outgoing: what the last makes.
    """

    def __init__(
        self, models: Sequence[Any], builder: Builder, incoming: Signal, into: Neurons | None = None
    ) -> None:
        """`into`: the neurons that the output must belong to; None leaves it to the blocks."""
        makers = [maker_of(model) for model in models]
        last = max((i for i, maker in enumerate(makers) if maker.makes_neurons), default=-1)
        self._blocks: list[Block] = []
        self.outgoing = incoming
        for index, (maker, model) in enumerate(zip(makers, models, strict=True)):
            block = maker(model, builder, self.outgoing, into if index == last else None)
            self._blocks.append(block)
            self.outgoing = block.outgoing

    def forward(self, x: Tensor) -> Tensor:
        for block in self._blocks:
            x = block.forward(x)
        return x
