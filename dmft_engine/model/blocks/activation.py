"""phi, neuron by neuron."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from dmft_engine.model.activations import ACTIVATIONS
from dmft_engine.model.blocks.base import Signal
from dmft_engine.weights.builder import Builder, Neurons
from dmft_schema.blocks import ActivationBlock


class Activation:
    makes_neurons: ClassVar[bool] = False

    def __init__(
        self, model: ActivationBlock, builder: Builder, incoming: Signal, into: Neurons | None
    ) -> None:
        self._function = ACTIVATIONS[model.name].function
        self.outgoing = Signal(incoming.shape, incoming.neurons)

    def forward(self, x: Tensor) -> Tensor:
        return self._function(x)
