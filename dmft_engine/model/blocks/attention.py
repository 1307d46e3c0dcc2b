"""Softmax attention between positions, by infinitely many heads of d neurons.

Theory section 12; arXiv:2405.15712.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from dmft_engine.model.blocks.base import Signal
from dmft_engine.weights.builder import Builder, Neurons
from dmft_schema.blocks import AttentionBlock


class Attention:
    makes_neurons: ClassVar[bool] = True

    def __init__(
        self, model: AttentionBlock, builder: Builder, incoming: Signal, into: Neurons | None
    ) -> None:
        stream, heads = incoming.population, builder.neurons(group=model.head_size)
        neurons = into or builder.neurons()
        self._positions = incoming.positions
        self._head_size = model.head_size
        self._scale = model.head_size**-0.5 if model.scores == "sqrt" else 1 / model.head_size
        entry, exit = builder.node(stream), builder.node(neurons)
        self._site = builder.site(entry, exit)
        self._query, self._key, self._value = (
            builder.matrix(entry, builder.node(heads)) for _ in ("query", "key", "value")
        )
        self._output = builder.matrix(builder.node(heads), exit)
        self._hidden = None
        if model.causal:
            later = torch.ones(self._positions, self._positions, dtype=torch.bool, device=builder.device)
            self._hidden = later.triu(1)
        self.outgoing = Signal(incoming.shape, neurons)

    def forward(self, x: Tensor) -> Tensor:
        x = self._site.enter(x)
        query, key, value = (self._by_head(part.forward(x)) for part in (self._query, self._key, self._value))
        # q_a . k_b / sqrt(d) within a head, [R, P, H, A, A]
        scores = self._scale * query @ key.mT
        if self._hidden is not None:
            scores = scores.masked_fill(self._hidden, -math.inf)
        # o_a = sum_b softmax_b(scores_ab) v_b
        mixed = scores.softmax(-1) @ value
        return self._site.leave(self._output.forward(mixed.transpose(2, 3).flatten(3).flatten(1, 2)))

    def _by_head(self, field: Tensor) -> Tensor:
        """[R, P A, S] as [R, P, H, A, d]."""
        by_position = field.unflatten(1, (-1, self._positions))
        return by_position.unflatten(3, (-1, self._head_size)).transpose(2, 3)
