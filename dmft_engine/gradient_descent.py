"""Gradient descent through training: the one loop that DMFT and finite networks share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from dmft_engine.activations import ACTIVATIONS
from dmft_engine.errors import Diverged
from dmft_engine.losses import LOSSES
from dmft_engine.networks import ARCHITECTURES, propagate
from dmft_engine.problem import Problem
from dmft_engine.recipe import Recipe
from dmft_engine.subspace import NotFinite
from dmft_engine.trajectory import Trajectory
from dmft_engine.weights import Weights
from dmft_schema import Progress

OnProgress = Callable[[Progress], None]
ShouldStop = Callable[[], bool]

DIVERGED_LOSS = 1e6
"""Loss, relative to the loss at t = 0, from which training counts as diverged."""


class Cancelled(Exception):
    """The caller asked the solve to stop."""


class Reporter:
    """Tells the caller how far a solve is, and hears from it whether to stop."""

    def __init__(self, steps: int, on_progress: OnProgress | None, should_stop: ShouldStop | None) -> None:
        self._steps = steps
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._started = time.monotonic()
        self._done = 0
        self._note = ""

    def restart(self, note: str) -> None:
        """The method begins again, for the reason that `note` adds to all later messages."""
        self._started = time.monotonic()
        self._done = 0
        self._note = f" ({note})"

    def finish(self, message: str) -> None:
        """Report that the method has ended before the steps it might have taken."""
        self._steps = self._done
        self._report(message, None, None)

    def step(self, message: str, loss: float, basis_size: int | None = None) -> None:
        """Report one more step done.

        Raises:
            Cancelled: the caller wants the solve to stop.
        """
        self._done += 1
        self._report(message, loss, basis_size)
        if self._should_stop is not None and self._should_stop():
            raise Cancelled

    def _report(self, message: str, loss: float | None, basis_size: int | None) -> None:
        if self._on_progress is None:
            return
        fraction = self._done / self._steps
        elapsed = time.monotonic() - self._started
        self._on_progress(
            Progress(
                fraction=fraction,
                step=self._done,
                steps=self._steps,
                message=message + self._note,
                eta_seconds=elapsed * (1 - fraction) / fraction,
                loss=loss,
                basis_size=basis_size,
            )
        )


def train(
    problem: Problem,
    weights: Weights,
    trajectory: Trajectory,
    reporter: Reporter,
    readout: str,
    input_kernel: Tensor,
) -> None:
    """Train and record. `trajectory` holds all that was reached, also when this raises.

    Args:
        problem: data, network and training; its method is not looked at.
        weights: at initialisation; trained in place.
        trajectory: empty; filled step by step.
        reporter: told of each step.
        readout: exact or ntk (theory section 1).
        input_kernel: [P, P] joint kernel K^x, on the weights' device.

    Raises:
        Diverged: the loss is not finite or has exploded.
        Cancelled: the caller asked to stop.
    """
    loss = LOSSES[problem.training.loss]
    activation = ACTIVATIONS[problem.network.activation]
    forward = ARCHITECTURES[problem.network.architecture]
    points = problem.data.points
    recipe = Recipe(problem.training, points)
    # With weight decay the output at t = 0 does not stay: there is nothing fixed to subtract.
    centred = problem.training.weight_decay == 0
    gamma0 = problem.network.gamma0
    samples = weights.layers[0].samples
    targets = torch.tensor(problem.data.targets, dtype=input_kernel.dtype, device=input_kernel.device)
    kernel_steps = set(problem.kernel_steps.tolist())

    # Gradients at test points move no weight; only the ntk readout needs them, to move f there.
    gradient_points = points if readout == "exact" else problem.data.kernel.shape[0]
    initial_output: Tensor | None = None
    initial_loss = 1.0
    f = None
    for step in range(problem.training.steps):
        try:
            fields = propagate(forward, activation, weights, gradient_points)
        except NotFinite:
            raise diverged(math.inf, initial_loss, step, problem.training.learning_rate) from None
        if initial_output is None:
            initial_output = fields.output
            f = torch.zeros_like(fields.output)
        if readout == "exact":
            # f = w . phi(h^L) / (gamma0 N), centred so that f(0) = 0.
            f = (fields.output - initial_output if centred else fields.output) / (gamma0 * samples)
        assert f is not None
        current = loss.reported(f[:, :points], targets)
        mean_loss = float(current.mean())
        initial_loss = mean_loss if step == 0 else initial_loss
        check_convergent(mean_loss, initial_loss, step, problem.training.learning_rate)
        trajectory.record_step(f, weights)
        if step in kernel_steps:
            trajectory.record_kernels(step, fields, weights, input_kernel)
        reporter.step("training", mean_loss, max(trajectory.basis_sizes.values()))

        errors = torch.zeros_like(f)
        weighting = recipe.weighting(step, f)[:, None]
        errors[:, :points] = weighting * loss.errors(f[:, :points], targets)
        if readout == "ntk":
            # f(t+1) = f(t) + (eta / P) K(t, t) Delta(t)
            f = f + torch.einsum("rcpdq,rqd->rpc", fields.ntk(input_kernel), errors)
        weights.update(fields, gamma0 * errors.mT, recipe.dynamics(step))


def check_convergent(loss: float, initial: float, step: int, learning_rate: float) -> None:
    """Raise Diverged if the loss is not finite or has exploded since the start."""
    if loss <= DIVERGED_LOSS * max(initial, 1.0):  # false for NaN, too
        return
    raise diverged(loss, initial, step, learning_rate)


def diverged(loss: float, initial: float, step: int, learning_rate: float) -> Diverged:
    """The error of a training run whose loss has exploded."""
    return Diverged(
        f"training diverged at step {step}: the loss is {loss:.3g} (it began at {initial:.3g})",
        f"Lower training.learning_rate (now {learning_rate:g}), for example to {learning_rate / 4:g}.",
        step,
    )
