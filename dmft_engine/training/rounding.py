"""What rounding does to the predictions of trained weights, estimated as training goes on.

Small updates of large weights drown in rounding in two ways. f = sigma w . phi / (gamma0 N) is the small
difference of large sums, known to about eps sigma |w| |phi| / (gamma0 sqrt(N)) after one step and to sqrt(t)
of it after t, as weights are rounded at random. And an update below the last digit of its weight is lost
altogether, always in the same sense: training seems slower than it is. The infinite-width limit keeps what
training adds to its hidden matrices apart; its input and readout vectors, and all of a dense network, are
stored whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from dmft_engine.errors import NotFinite, TooLittlePrecision
from dmft_engine.model.fields import Fields
from dmft_engine.model.recipe import Recipe
from dmft_engine.problem import Problem
from dmft_engine.state import Stateful

ROUNDING_OF_SUMS = 4.0
"""Rounding of f in a step, over eps sigma |w| |phi| / (gamma0 sqrt(N)): of all layers' fields."""

ROUNDING_OF_CHANGES = 8.0
"""Relative rounding of what f gains in a step, over eps."""

SUBSTEPS = 8
"""Gradient flow is taken to make this many steps between recorded times."""

FLOAT32_SCALES = 1e15
"""Scales of the input kernel that float32 takes lie between this and one over it."""

MOST_RELATIVE = 1e-4
"""Rounding of f at the end, over the errors that training starts with, above which float64 is needed."""

LAZY = 1e-3
"""gamma0 up to which the lazy limit is an answer to a request that float64 cannot solve."""

MOST_LOST = 1e-2
"""Rounding of weights over their first update: training stalls at that part of its errors."""


class Imprecise(Exception):
    """Updates are too small for float32: the solve is to be done in float64.

    Attributes:
        why: for the note in the diagnostics.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def check_scale(kernel: Tensor, dtype: torch.dtype) -> None:
    """Look whether products of what an input kernel makes stay within the numbers of a dtype.

    Raises:
        Imprecise: float32 is asked for, and the kernel's scale leaves it no room.
    """
    largest = float(kernel.diagonal().amax())
    if dtype == torch.float32 and not 1 / FLOAT32_SCALES < largest < FLOAT32_SCALES:
        raise Imprecise(f"products with an input kernel of scale {largest:.1g} would leave the numbers")


def in_float64(imprecise: Imprecise) -> str:
    """What the diagnostics say of a solve that was begun again."""
    return f"computed in float64: in float32 {imprecise.why}."


@dataclass
class Rounding(Stateful):
    """Of one run, with weights that are stored in one dtype.

    Attributes:
        problem: what is solved.
        exact: whether f is read off the fields; else rolled out with the NTK.
        dense: whether hidden matrices are stored whole, with entries of order 1 / sqrt(N).
        errors: estimated error of f at each recorded step, the largest of any member.
    """

    kept: ClassVar[tuple[str, ...]] = (
        "errors",
        "_sums",
        "_lost",
        "_changed",
        "_change",
        "_errors",
        "_first",
    )

    problem: Problem
    exact: bool
    dense: bool
    errors: list[float] = field(default_factory=list)
    _errors: Tensor | None = None
    _first: list[float] = field(default_factory=list)
    """What the first step was judged by."""

    def __post_init__(self) -> None:
        # Of each member [R], so that it does not matter which others are computed beside it.
        self._sums = self._lost = self._changed = self._change = torch.zeros(1, dtype=torch.float64)
        self._recipe = Recipe(self.problem.training, self.problem.data.points)

    def observe(self, step: int, fields: Fields, errors: Tensor, readout: Tensor) -> None:
        """Take a recorded step into account; in the first, judge whether the dtype will do.

        Args:
            step: the step.
            fields: at the current weights.
            errors: Delta [R, P, C].
            readout: w [R, C, S].

        Raises:
            Imprecise: float32 will not do.
            TooLittlePrecision: float64 will not do.
        """
        gamma0, points, neurons = self.problem.network.gamma0, errors.shape[1], fields.neurons
        sigma, eps = fields.scales.weights[-1], torch.finfo(readout.dtype).eps
        length = torch.linalg.vector_norm(readout, dim=(1, 2), dtype=torch.float64).cpu()
        length = length / math.prod(readout.shape[1:]) ** 0.5
        gram, delta = _gram(fields.readable[:, :points]), errors.mT.double().cpu()
        activity = (gram.diagonal(dim1=-2, dim2=-1).amax(-1) / neurons).sqrt()
        # One step w += e Delta^T phi of the readout, and what it does to f, by phi phi^T alone.
        rate = sigma * gamma0 * self._rate(step) / points
        through_readout = rate * (delta @ gram)
        update = rate * (through_readout * delta).sum(-1)
        relative = (update.clamp_min(0).mean(-1) / readout.shape[-1]).sqrt() / length.clamp_min(1e-300)
        if self.dense and len(fields.phi) > 1:
            relative = relative / neurons**0.5
        change = through_readout.abs().amax((1, 2)) * ((len(fields.phi) + 1) * sigma / (gamma0 * neurons))
        sums = activity * length * (ROUNDING_OF_SUMS * eps * sigma / (gamma0 * neurons**0.5))
        if step == 0:
            # Of members that differ, the one that bears least.
            least = min((value for value in relative.tolist() if value), default=0.0)
            self._first = [eps, float(sums.amax()), least, float(delta.abs().amax())]
            self._judge(*self._first)
        self._grow(change, delta)
        self._sums = torch.hypot(self._sums, sums) if self.exact else self._sums
        total = self._sums + ROUNDING_OF_CHANGES * eps * self._changed + self._lost
        self.errors.append(float(total.amax()))
        # Rounding loses what is shorter than half the last digit, and nothing on average of the rest.
        lost = change * (eps / relative.clamp_min(1e-300)).clamp_max(1.0).square()
        self._lost = self._lost + (lost if self.exact else min(1.0, gamma0) * lost)
        self._changed = self._changed + change

    def judge_again(self) -> None:
        """Judge what was observed in the first step by the problem's number of steps, which has changed.

        Raises:
            Imprecise, TooLittlePrecision: see `observe`.
        """
        if self._first:
            self._judge(*self._first)

    def _rate(self, step: int) -> float:
        """Learning rate of one update; momentum makes of small ones a larger one."""
        training = self.problem.training
        if training.dynamics == "gradient_flow":
            return training.learning_rate / SUBSTEPS
        return float(self._recipe.rates[step]) / (1 - training.momentum)

    def _grow(self, change: Tensor, errors: Tensor) -> None:
        """Where training is unstable, errors of earlier steps grow.

        By as much as updates grow, or as |1 - eta lambda / P| with the Rayleigh quotient
        eta lambda / P = |Delta(t + 1) - Delta(t)| / |Delta(t)| of the NTK.
        """
        if self._errors is not None:
            quicker = torch.where(self._change > 0, change / self._change.clamp_min(1e-300), 1.0)
            moved = (errors - self._errors).flatten(1).norm(dim=1)
            before = self._errors.flatten(1).norm(dim=1).clamp_min(1e-300)
            growth = quicker.maximum(moved / before - 1).clamp_min(1.0)
            self._sums, self._lost = growth * self._sums, growth * self._lost
            self._changed = growth * self._changed
        self._errors = errors
        self._change = change

    def _judge(self, eps: float, sums: float, relative: float, errors: float) -> None:
        if not math.isfinite(sums) or not math.isfinite(relative):
            raise NotFinite
        training = self.problem.training
        reasons = []
        of_sums = sums * math.sqrt(training.steps)
        if self.exact and of_sums > MOST_RELATIVE * errors > 0:
            reasons.append(f"rounding of f would reach {of_sums:.1g}")
        if relative and eps / relative > MOST_LOST:
            reasons.append(f"updates of {relative:.1g} of the weights would be lost")
        decay = training.learning_rate * training.weight_decay
        if 0 < decay < eps / MOST_LOST and decay * training.steps > MOST_RELATIVE:
            reasons.append(f"a decay of {decay:.1g} in a step would be lost")
        if not reasons:
            return
        why = " and ".join(reasons)
        if eps > torch.finfo(torch.float64).eps:
            raise Imprecise(why)
        raise TooLittlePrecision(
            f"even in float64, at gamma0 = {self.problem.network.gamma0:g} {why}", self._advice(), 0
        )

    def _advice(self) -> str:
        """What helps where float64 does not: the lazy limit differs from gamma0 by about gamma0 squared."""
        if self.problem.network.gamma0 <= LAZY:
            return (
                "Solve the lazy limit instead, network.gamma0 = 0 or method static_ntk, which differs by "
                "less than what rounding leaves; or raise training.learning_rate."
            )
        return (
            "Outputs before training are too large beside the targets: scale the inputs or the kernel down "
            "(pixels to 0..1, say), or use an activation that grows less; or raise training.learning_rate "
            "if it is very small."
        )


def _gram(phi: Tensor) -> Tensor:
    """phi phi^T [R, P, P] in float64 on the CPU, made in the fields' own dtype where that can hold it."""
    gram = phi @ phi.mT
    gram = gram if bool(gram.isfinite().all()) else phi.double() @ phi.double().mT
    return gram.double().cpu()
