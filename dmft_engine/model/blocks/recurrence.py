"""h_tau = sigma_w W phi(h_{tau-1}) / sqrt(N) + x_tau, h_0 = 0, W at every time (theory section 10)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from dmft_engine.model.activations import ACTIVATIONS
from dmft_engine.model.blocks.base import Signal
from dmft_engine.weights.builder import Builder, Neurons
from dmft_schema.blocks import RecurrenceBlock


class Recurrence:
    makes_neurons: ClassVar[bool] = False

    def __init__(
        self, model: RecurrenceBlock, builder: Builder, incoming: Signal, into: Neurons | None
    ) -> None:
        neurons = incoming.population
        self._phi = ACTIVATIONS[model.activation].function
        (self._times,) = incoming.shape.positions
        # The gradient of what comes in at a time is that of h there.
        exit = incoming.exit or builder.node(neurons)
        self._site = builder.site(exit=exit)
        self._matrix = builder.matrix(builder.node(neurons), exit, model.weight_scale)
        self.outgoing = Signal(model.shape_after(incoming.shape), neurons)

    def forward(self, x: Tensor) -> Tensor:
        incoming = self._site.tap.mark(self._site.enter(x))
        h: list[Tensor] = []
        for current in incoming.unflatten(1, (-1, self._times)).unbind(2):
            h.append(current + self._matrix.forward(self._phi(h[-1])) if h else current)
        self._site.h = torch.stack(h, dim=2).flatten(1, 2)
        return self._site.h
