"""h / sqrt(<h^2>), or (h - <h>) / sqrt(<h^2> - <h>^2), averages over neurons (theory section 11).

They concentrate, so that the limit needs nothing else: row by row, inside the pass.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from dmft_engine.model.blocks.base import Signal
from dmft_engine.weights.builder import Builder, Neurons
from dmft_schema.blocks import NormaliseBlock


class Normalise:
    makes_neurons: ClassVar[bool] = False

    def __init__(
        self, model: NormaliseBlock, builder: Builder, incoming: Signal, into: Neurons | None
    ) -> None:
        self._centred = model.kind == "layer"
        self._gain = builder.gain() if model.learned else None
        self._offset = builder.offset(self._gain.tap) if self._gain and self._centred else None
        self.outgoing = Signal(incoming.shape, incoming.neurons)

    def forward(self, x: Tensor) -> Tensor:
        if self._centred:
            x = x - x.mean(-1, keepdim=True)
        # A row of zeros, such as a patch of black pixels, stays what it is.
        square = x.square().mean(-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
        x = x * square.rsqrt()
        if self._gain is not None:
            x = self._gain.forward(x)
        return x if self._offset is None else self._offset.forward(x)
