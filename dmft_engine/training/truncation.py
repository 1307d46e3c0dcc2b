"""What truncation does to the predictions of the infinite-width limit, estimated as training goes on.

Bases leave out of every field what lies within a tolerance (populations/subspace.py). Three things follow:

  * Learning is late. Each step loses a fraction of its length, and f at a time is what it should have been
    somewhat earlier: an error is the delay so far times the speed of f.
  * Directions of the data that hardly differ are learned slowly, and what is left out of the fields there may
    be much of what they have. With r the rest of a field the kernel of a matrix, G Phi, is short of
    G <r r> + <r' r'> Phi; what f loses by it in each step is carried along by the NTK.
  * Where training is unstable, eta lambda_max / P > 2 for the NTK of the time, errors grow with every step.

The constants are the smallest round numbers that bound the errors of 300 random deep linear networks, which
have no other (docs/accuracy.md): depth 2 to 4, P 1 to 40, gamma0 1e-4 to 10, learning rates up to the stable
one, momentum, tolerances .003 to .1, points that nearly coincide.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmft_engine.model.fields import Fields
from dmft_engine.model.networks import AnyWeights
from dmft_engine.model.recipe import Recipe
from dmft_engine.problem import Problem
from dmft_engine.state import Stateful
from dmft_engine.training.stability import CURVATURE, MOST_JUDGED

DELAY_PER_DROPPED = 0.08
DELAY_PER_DROPPED_SQUARED = 7.0
"""Fraction of a step lost for each basis, over what it left out of the longest field, and over its square."""

LOST_OF_KERNELS = 16.0
"""Errors of f over what its steps lose by the kernels' rests: features would have learned from it, too."""

MOST_GROWN = 1e30
AT_FIRST, LATER = 16, 4
"""Kernels are looked at in each of the first steps, then in every fourth: they move slowly."""

FIRST_ROUNDS, LATER_ROUNDS = 30, 3
"""Of power iteration, for the NTK's largest eigenvalue; from step to step it moves little."""

WORST = 10.0
"""An estimate ends at this many times the largest loss so far: nothing is known of training that is that
sensitive."""

SENSITIVE = 10.0


@dataclass
class Truncation(Stateful):
    """Of one run.

    Attributes:
        problem: what is solved.
        delay: at each recorded step, the learning time by which f is late.
        lost: at each, the rest's part of f, root mean square over points and outputs.
        growth: at each, what errors have grown by since they arose.
    """

    kept: ClassVar[tuple[str, ...]] = (
        "delay",
        "lost",
        "growth",
        "_late",
        "_grown",
        "_error",
        "_velocity",
        "_ntk",
        "_rest",
        "_top",
    )

    problem: Problem
    delay: list[float] = field(default_factory=list)
    lost: list[float] = field(default_factory=list)
    growth: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        training = self.problem.training
        self._recipe = Recipe(training, self.problem.data.points)
        self._flows = training.dynamics == "gradient_flow"
        self._curvature = CURVATURE.get(training.loss, 0.0)
        # Other losses are flat somewhere, and errors stay there.
        self._damping = 1.0 if training.loss == "mse" else 0.0
        size = self.problem.data.points * self.problem.data.outputs
        self._judged = training.backward_rule == "backpropagation" and size <= MOST_JUDGED
        self._late, self._grown = 0.0, 1.0
        self._error = self._velocity = torch.zeros(size, dtype=torch.float64)
        self._ntk = self._rest = self._top = self._error

    def observe(
        self, step: int, fields: Fields, weights: AnyWeights, errors: Tensor, input_kernel: Tensor
    ) -> None:
        """Take a recorded step into account.

        Args:
            step: the step.
            fields, weights: at that time.
            errors: Delta [R, P, C].
            input_kernel: K^x, training points first.
        """
        self.delay.append(self._late)
        self.lost.append(float(self._error.square().mean().sqrt()))
        self.growth.append(self._grown)
        dropped = np.array([part for parts in weights.dropped for part in parts])
        if not dropped.size:
            return
        fraction = (DELAY_PER_DROPPED * dropped + DELAY_PER_DROPPED_SQUARED * dropped**2).sum()
        # A change of the gradient acts for 1 / (1 - mu) steps.
        self._late += float(self._recipe.rates[step] * fraction) / (1 - self.problem.training.momentum)
        if not self._judged:
            return
        if step < AT_FIRST or step % LATER == 0:
            ntk = fields.ntk(input_kernel)
            self._ntk = self._of_training(ntk)
            self._rest = self._of_training(sum(weights.rest(), torch.zeros_like(ntk)))
        weighting = self._recipe.weighting(step, self._error).repeat(errors.shape[-1])
        delta = errors.mean(0).mT.flatten().double().cpu()
        self._carry(weighting, self._rest @ (weighting * delta))

    def _of_training(self, kernel: Tensor) -> Tensor:
        """The training points' part of [R, C, A, C, A], the mean over replicas: [C P, C P]."""
        points = self.problem.data.points
        mean = kernel[:, :, :points, :, :points].mean(0)
        return mean.flatten(2).flatten(0, 1).double().cpu().nan_to_num()

    def _carry(self, weighting: Tensor, lost: Tensor) -> None:
        """Errors one step on, by the NTK, each point's weight [C P], and what f loses [C P]."""
        momentum = self.problem.training.momentum
        if self._flows:
            # Implicitly: recorded times may lie far apart.
            system = torch.eye(len(lost), dtype=lost.dtype) + self._damping * self._ntk * weighting
            self._error = torch.linalg.solve(system, self._error + lost)
            return
        damping = self._damping * (self._ntk @ (weighting * self._error))
        self._velocity = (momentum * self._velocity - damping + lost).nan_to_num()
        self._error = (self._error + self._velocity).clamp(-MOST_GROWN, MOST_GROWN)
        speed = self._curvature * self._largest(weighting)
        # The larger root of z^2 - (1 + mu - speed) z + mu.
        middle = abs(1 + momentum - speed) / 2
        factor = middle + max(middle**2 - momentum, 0.0) ** 0.5
        self._grown = min(self._grown * max(1.0, factor), MOST_GROWN)

    def _largest(self, weighting: Tensor) -> float:
        """Largest eigenvalue of the NTK times each point's weight, or 0 where that is not a number."""
        rounds = LATER_ROUNDS
        if not bool(self._top.any()):
            generator = torch.Generator().manual_seed(0)
            self._top = torch.randn(len(weighting), generator=generator, dtype=weighting.dtype)
            rounds = FIRST_ROUNDS
        largest = 0.0
        for _ in range(rounds):
            moved = self._ntk @ (weighting * self._top)
            length = float(moved.norm())
            if not 0 < length < MOST_GROWN:
                return 0.0
            largest = length / float(self._top.norm())
            self._top = moved / length
        return largest

    def of_loss(self, f: NDArray, loss: NDArray, errors: NDArray) -> NDArray:
        """Error of a loss curve [T].

        Args:
            f: [T, A, C], the mean over replicas.
            loss: [T], as reported: summed over outputs.
            errors: Delta [T, A, C], root mean squares over replicas.
        """
        steps, outputs = len(f), f.shape[-1]
        if steps < 2:
            return np.zeros(steps)
        growth = np.array(self.growth[:steps])
        late = np.array(self.delay[:steps]) * speeds(f, self._recipe.rates, self.problem.training.momentum)
        error = growth * (late + LOST_OF_KERNELS * np.array(self.lost[:steps]))
        slope = np.sqrt(np.square(errors).mean((1, 2)))
        # An error e of f changes (f - y)^2 by 2 |f - y| e + e^2.
        return np.minimum(outputs * (2 * slope * error + error**2), WORST * np.maximum.accumulate(loss))

    def note(self, steps: int) -> str | None:
        """What is to be said of training that makes much of small errors; None if it does not."""
        grown = np.array(self.growth[:steps])
        if not len(grown) or grown[-1] < SENSITIVE:
            return None
        step = int(np.argmax(grown >= SENSITIVE))
        return (
            f"training is unstable from about step {step}: errors have grown {grown[-1]:.1g} times at its "
            "end, and loss_truncation_error with them. Lower training.learning_rate, or method.tolerance."
        )


def speeds(f: NDArray, rates: NDArray, momentum: float) -> NDArray:
    """[T] of predictions [T, A, C] in learning time: root mean squares, the faster of before and after.

    Truncation shifts f by the step before, whatever comes after. With momentum f swings: what it was
    lately counts, less by sqrt(mu) with every step, as fast as swings die down.
    """
    moved = np.sqrt(np.square(np.diff(f, axis=0)).mean((1, 2)))
    moved = np.divide(moved, rates[: len(moved)], out=np.zeros_like(moved), where=rates[: len(moved)] > 0)
    found = np.append(moved, 0.0)
    lately = 0.0
    for step, before in enumerate(moved, start=1):
        lately = max(before, lately * momentum**0.5)
        found[step] = max(found[step], lately)
    return found
