"""Which learning rates gradient descent bears, and what is said of one that diverges.

With a kernel K that does not move, f(t+1) = f(t) + (eta / P) K Delta(t) shrinks errors while
eta c lambda_max(K) / P < 2 (1 + mu), where c bounds the loss's second derivative and mu is the momentum.
Feature learning moves the kernel, so that what is known at t = 0 is no promise; with the mean squared error,
whose curvature is the same everywhere, a rate above it is known to be too large.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from dmft_engine.errors import Diverged
from dmft_engine.state import Stateful
from dmft_schema import Training

DIVERGED_LOSS = 1e6
"""Loss, relative to the loss at t = 0, from which training counts as diverged."""

CURVATURE = {"mse": 1.0, "logistic": 0.25, "cross_entropy": 0.5}
"""Largest second derivative of each loss in f; hinge has none, and does not diverge."""

MOST_JUDGED = 2048
"""Points times outputs up to which the whole NTK is looked at; beyond it, one output's."""


class Stability(Stateful):
    """Judges the loss of one training run, and what its learning rate is to the largest stable one.

    Attributes:
        bound: largest stable learning rate with the kernel at t = 0; None where it is not known.
    """

    kept: ClassVar[tuple[str, ...]] = ("_initial", "bound")

    def __init__(self, training: Training, bound: float | None = None) -> None:
        self._training = training
        self._initial = 1.0
        self.bound = bound

    @classmethod
    def of(cls, training: Training, ntk: Tensor) -> Stability:
        """By the NTK at t = 0 of the training points, [C, P, C, P] or [P, P]."""
        curvature = CURVATURE.get(training.loss)
        points = ntk.shape[-1]
        known = training.dynamics == "gradient_descent" and training.backward_rule == "backpropagation"
        if not known or curvature is None:
            return cls(training)
        if ntk.ndim == 4:
            outputs = len(ntk)
            ntk = ntk.flatten(2).flatten(0, 1) if outputs * points <= MOST_JUDGED else ntk[0, :, 0]
        ntk = ntk.double()
        scale = float(ntk.abs().max())
        if not 0 < scale < math.inf:
            return cls(training)
        largest = float(torch.linalg.eigvalsh((ntk + ntk.mT) / (2 * scale))[-1]) * scale
        # A batch of B points counts B / P of the kernel at least; how much more depends on the batch.
        together = min(training.batch_size or points, points)
        return cls(training, 2 * (1 + training.momentum) * together / (curvature * largest))

    @property
    def exceeded(self) -> bool:
        """Whether the learning rate is known to be too large."""
        # Each batch of several sees less than the whole kernel: its own bound is not known.
        whole = self._training.batch_size is None
        same_everywhere = self._training.loss == "mse"
        return (
            self.bound is not None and whole and same_everywhere and self._training.learning_rate > self.bound
        )

    @property
    def warning(self) -> str | None:
        """What to say before training starts; None if nothing is known against the learning rate."""
        if not self.exceeded:
            return None
        return (
            f"training.learning_rate {self._training.learning_rate:g} is above {self.bound:.3g}, the largest "
            "at which gradient descent with the kernel at t = 0 is stable (2 P / lambda_max of the NTK)"
        )

    def check(self, loss: float, step: int) -> None:
        """Take the loss of a step into account.

        Raises:
            Diverged: it is not finite or has exploded since step 0.
        """
        self._initial = loss if step == 0 else self._initial
        if not loss <= DIVERGED_LOSS * max(self._initial, 1.0):  # true for NaN, too
            raise self.diverged(step, loss)

    def diverged(self, step: int, loss: float = math.inf) -> Diverged:
        """The error of a run whose loss has exploded."""
        return Diverged(
            f"training diverged at step {step}: the loss is {loss:.3g} (it began at {self._initial:.3g})",
            self._advice(),
            step,
        )

    def _advice(self) -> str:
        rate = self._training.learning_rate
        if self.bound is None:
            return f"Lower training.learning_rate (now {rate:g}), for example to {rate / 4:.3g}."
        why = f"gradient descent with the kernel at t = 0 is stable below {self.bound:.3g}"
        if rate <= self.bound:
            why += ", which feature learning has lowered since"
        lower = min(rate / 4, self.bound / 2)
        return (
            f"Lower training.learning_rate (now {rate:g}), for example to {lower:.3g}: {why} "
            "(2 P / lambda_max of the NTK)."
        )
