"""A trained tensor."""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch
from torch import Tensor

from dmft_engine.state import Stateful


class Parameter(Stateful):
    """A tensor [R, a, b] that training moves. It grows as matrices are revealed.

    Attributes:
        value: where it is.
        unit: length of a change that moves fields by about their own size (gradient_flow.py).
        slots: what an optimiser or integrator keeps of it, by name: tensors of its shape, which grow with it.
    """

    kept: ClassVar[tuple[str, ...]] = ("value", "slots")

    def __init__(self, value: Tensor, unit: float = 1.0) -> None:
        self.value = value
        self.unit = unit
        self.slots: dict[str, Tensor] = {}

    def grow(self, rows: int, columns: int) -> None:
        """Append rows and columns of zeros."""

        def padded(tensor: Tensor) -> Tensor:
            return torch.nn.functional.pad(tensor, (0, columns, 0, rows))

        self.value = padded(self.value)
        self.slots = {name: padded(tensor) for name, tensor in self.slots.items()}


class Update(Protocol):
    """What is done with the gradient of a parameter (training/optimisers.py)."""

    def __call__(self, parameter: Parameter, left: Tensor, right: Tensor, alpha: float) -> None:
        """Take minus the gradient, alpha left right.

        Args:
            parameter: [R, a, b].
            left, right: [R, a, n] and [R, n, b].
            alpha: a factor.
        """
