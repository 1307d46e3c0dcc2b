"""sum_b W_b x_{stride a + b} / sqrt(fan-in k^d) + sigma_b b over a filter's offsets (theory section 9)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from dmft_engine.model.blocks.base import Signal
from dmft_engine.weights.builder import Builder, Neurons
from dmft_engine.weights.linear import Linear
from dmft_engine.weights.windows import filter_window
from dmft_schema.blocks import ConvolutionBlock


class Convolution:
    makes_neurons: ClassVar[bool] = True

    def __init__(
        self, model: ConvolutionBlock, builder: Builder, incoming: Signal, into: Neurons | None
    ) -> None:
        neurons = into or builder.neurons()
        after = model.shape_after(incoming.shape)
        window = filter_window(
            incoming.shape.positions,
            after.positions,
            model.size,
            model.stride,
            model.padding,
            builder.device,
        )
        rows = builder.inputs() if incoming.neurons is None else None
        if rows is not None:  # Patches, [P A', D k^d].
            rows = window.forward.spread(rows[None])[0]
        self._linear = Linear(
            builder, incoming.neurons, neurons, rows, model.weight_scale, model.bias_scale, window
        )
        self.outgoing = Signal(after, neurons, self._linear.exit)

    def forward(self, x: Tensor) -> Tensor:
        return self._linear.forward(x)
