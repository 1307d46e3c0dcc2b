"""Predictions through training, however they are found: what they are judged by, and how an NTK moves them.

Every solver goes through here, of the limit and of networks: the errors Delta of f, its loss and whether that
has exploded, and f(t+1) = f(t) + (eta / P) K(t, t) Delta(t) where f is rolled out. Shapes are for R members,
A points of which the first P train, C outputs.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from dmft_engine.model.losses import LOSSES
from dmft_engine.problem import Problem
from dmft_engine.state import Stateful
from dmft_engine.training.reporter import Reporter
from dmft_engine.training.stability import Stability


class Rollout(Stateful):
    """Judges the predictions of one run.

    Attributes:
        stability: of training at this learning rate.
    """

    kept: ClassVar[tuple[str, ...]] = ("stability",)

    def __init__(self, problem: Problem, like: Tensor) -> None:
        """`like`: a tensor of the dtype and on the device of the predictions."""
        self._training = problem.training
        self._points = problem.data.points
        self._loss = LOSSES[problem.training.loss]
        self._targets = torch.tensor(problem.data.targets).to(like)
        self.stability = Stability(problem.training)

    def judge_rate(self, ntk: Tensor) -> None:
        """Take the NTK at t = 0 into account, [C, A, C, A] or [A, A]: it says which rates are stable."""
        own = slice(0, self._points)
        ntk = ntk[:, own, :, own] if ntk.ndim == 4 else ntk[own, own]
        self.stability = Stability.of(self._training, ntk)

    @property
    def notes(self) -> list[str]:
        """What is to be said of the learning rate."""
        return [self.stability.warning] if self.stability.warning else []

    def warn(self, reporter: Reporter) -> None:
        """Say it with all later progress."""
        for note in self.notes:
            reporter.remark(note)

    def loss(self, f: Tensor) -> float:
        """Of the training points, the mean over members; f is [R, A, C] or [A, C]."""
        return float(self.losses(f).mean())

    def losses(self, f: Tensor) -> Tensor:
        """Of predictions [.., A, C] at any times: [..]."""
        return self._loss.reported(f[..., : self._points, :], self._targets)

    def checked_loss(self, f: Tensor, step: int) -> float:
        """The same at a step.

        Raises:
            Diverged: it is not finite or has exploded.
        """
        loss = self.loss(f)
        self.stability.check(loss, step)
        return loss

    def errors(self, f: Tensor) -> Tensor:
        """Delta [.., P, C]."""
        return self._loss.errors(f[..., : self._points, :], self._targets)

    def pull(self, f: Tensor, weighting: Tensor) -> Tensor:
        """What moves the weights: the errors times what each point counts [P], 0 at test points; as f."""
        pull = torch.zeros_like(f)
        pull[..., : self._points, :] = weighting[:, None] * self.errors(f)
        return pull


def advanced(f: Tensor, ntk: Tensor, pull: Tensor) -> Tensor:
    """f(t+1) = f(t) + (eta / P) K(t, t) Delta(t).

    Args:
        f: [R, A, C], or [R, C, A].
        ntk: [R, A, C, A, C], or [R, C, A, C, A]: its axes are those of f, twice.
        pull: eta / P times the errors, f's shape.
    """
    return f + torch.einsum("rabcd,rcd->rab", ntk, pull)
