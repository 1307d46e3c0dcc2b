"""A trained tensor: moved step by step, or along the slopes of an integrator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dmft_engine.model.recipe import Dynamics


class Parameter:
    """A tensor [R, a, b] that training moves, with the velocity that momentum gives it.

    Attributes:
        value: where it is.
        unit: length of a change that moves fields by about their own size (gradient_flow.py).
        slopes: its time derivatives at the stages of a step of gradient flow.
    """

    def __init__(self, value: Tensor, unit: float = 1.0) -> None:
        self.value = value
        self.unit = unit
        self.slopes: list[Tensor] = []
        self._start: Tensor | None = None
        self._velocity: Tensor | None = None

    def step(self, left: Tensor, right: Tensor, alpha: float, dynamics: Dynamics) -> None:
        """One step: v <- mu v + alpha left right - decay theta, theta <- theta + v.

        In gradient flow, alpha left right - decay theta is kept as a slope, and nothing moves.

        Args:
            left, right: [R, a, n] and [R, n, b]; their product is minus the gradient.
            alpha: its factor.
            dynamics: momentum and decay.
        """
        if dynamics.flows:
            self.slopes.append(torch.baddbmm(self.value, left, right, beta=-dynamics.decay, alpha=alpha))
            return
        if dynamics.momentum == 0:
            if dynamics.decay:
                self.value.mul_(1 - dynamics.decay)
            self.value.baddbmm_(left, right, alpha=alpha)
            return
        if self._velocity is None:
            self._velocity = torch.zeros_like(self.value)
        self._velocity.mul_(dynamics.momentum).add_(self.value, alpha=-dynamics.decay)
        self._velocity.baddbmm_(left, right, alpha=alpha)
        self.value.add_(self._velocity)

    def begin(self) -> None:
        """A step of gradient flow starts here."""
        self._start = self.value
        self.slopes = []

    def back(self) -> None:
        """To where the step started."""
        assert self._start is not None
        self.value = self._start

    def move(self, amounts: Sequence[float]) -> None:
        """Go to where the step started plus the slopes so far, times their amounts."""
        assert self._start is not None
        self.value = self._start + self.combine(amounts)

    def combine(self, amounts: Sequence[float]) -> Tensor:
        """Sum of the slopes times their amounts."""
        return torch.stack([amount * slope for amount, slope in zip(amounts, self.slopes, strict=True)]).sum(
            0
        )

    def grow(self, rows: int, columns: int) -> None:
        """Append rows and columns of zeros."""

        def padded(tensor: Tensor) -> Tensor:
            return torch.nn.functional.pad(tensor, (0, columns, 0, rows))

        self.value = padded(self.value)
        self._start = None if self._start is None else padded(self._start)
        self.slopes = [padded(slope) for slope in self.slopes]
        if self._velocity is not None:
            self._velocity = padded(self._velocity)
