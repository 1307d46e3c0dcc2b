"""Gradient descent through training: the one loop that DMFT and finite networks share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dmft_engine.activations import ACTIVATIONS
from dmft_engine.errors import Diverged
from dmft_engine.fields import Fields
from dmft_engine.kernel_record import FactoredKernel
from dmft_engine.losses import LOSSES
from dmft_engine.networks import ARCHITECTURES, propagate
from dmft_engine.problem import Problem
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

    def __init__(
        self, steps: int, on_progress: OnProgress | None, should_stop: ShouldStop | None
    ) -> None:
        self._steps = steps
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._started = time.monotonic()
        self._done = 0

    def step(self, message: str, loss: float, basis_size: int | None = None) -> None:
        """Report one more step done.

        Raises:
            Cancelled: the caller wants the solve to stop.
        """
        self._done += 1
        if self._on_progress is not None:
            fraction = self._done / self._steps
            elapsed = time.monotonic() - self._started
            self._on_progress(
                Progress(
                    fraction=fraction,
                    step=self._done,
                    steps=self._steps,
                    message=message,
                    eta_seconds=elapsed * (1 - fraction) / fraction,
                    loss=loss,
                    basis_size=basis_size,
                )
            )
        if self._should_stop is not None and self._should_stop():
            raise Cancelled


@dataclass
class Trajectory:
    """What is recorded, for R replicas (or ensemble members) of the same problem.

    Attributes:
        predictions: f at each step, [R, P, C] each, test points last.
        kernel_steps: steps at which kernels were kept.
        phi, g: two-time kernels by layer, l = 1..L.
        ntk: [R, C, P, C, P] at each kernel step, if asked for.
        dropped: at each step, for each hidden matrix, the longest parts of phi and g outside its
            bases, relative to the longest fields.
    """

    phi: list[FactoredKernel]
    g: list[FactoredKernel]
    predictions: list[Tensor] = field(default_factory=list)
    kernel_steps: list[int] = field(default_factory=list)
    ntk: list[Tensor] = field(default_factory=list)
    dropped: list[list[tuple[float, float]]] = field(default_factory=list)


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
    rate = problem.training.learning_rate / points
    gamma0 = problem.network.gamma0
    samples = weights.layers[0].samples
    targets = torch.as_tensor(
        problem.data.targets, dtype=input_kernel.dtype, device=input_kernel.device
    )
    kernel_steps = set(problem.kernel_steps.tolist())
    keep_ntk = "ntk" in problem.outputs.kernels

    initial_output: Tensor | None = None
    initial_loss = 1.0
    f = None
    for step in range(problem.training.steps):
        fields = propagate(forward, activation, weights)
        if initial_output is None:
            initial_output = fields.output
            f = torch.zeros_like(fields.output)
        if readout == "exact":
            # f = w . phi(h^L) / (gamma0 N), centred so that f(0) = 0.
            f = (fields.output - initial_output) / (gamma0 * samples)
        assert f is not None
        current = loss.reported(f[:, :points], targets)
        mean_loss = float(current.mean())
        initial_loss = mean_loss if step == 0 else initial_loss
        _check_convergent(mean_loss, initial_loss, step, problem.training.learning_rate)
        trajectory.predictions.append(f)
        if step in kernel_steps:
            _record_kernels(trajectory, weights, fields, step, input_kernel, keep_ntk)
        trajectory.dropped.append(
            [
                (source.phi.dropped, target.g.dropped)
                for source, target in zip(weights.layers[:-1], weights.layers[1:], strict=True)
            ]
        )
        largest = max(max(layer.phi.size, layer.g.size) for layer in weights.layers)
        reporter.step("training", mean_loss, largest)

        errors = torch.zeros_like(f)
        errors[:, :points] = loss.errors(f[:, :points], targets)
        if readout == "ntk":
            # f(t+1) = f(t) + (eta / P) K(t, t) Delta(t)
            f = f + rate * torch.einsum("rcpdq,rqd->rpc", fields.ntk(input_kernel), errors)
        weights.update(fields, gamma0 * rate * errors.mT)


def _check_convergent(loss: float, initial: float, step: int, learning_rate: float) -> None:
    if loss <= DIVERGED_LOSS * max(initial, 1.0):  # false for NaN, too
        return
    raise Diverged(
        f"training diverged at step {step}: the loss is {loss:.3g} (it began at {initial:.3g})",
        f"Lower training.learning_rate (now {learning_rate:g}), for example to {learning_rate / 4:g}.",
        step,
    )


def _record_kernels(
    trajectory: Trajectory,
    weights: Weights,
    fields: Fields,
    step: int,
    input_kernel: Tensor,
    keep_ntk: bool,
) -> None:
    trajectory.kernel_steps.append(step)
    for kernel, layer in zip(trajectory.phi, weights.layers, strict=True):
        kernel.record(layer.phi.latest)
    for kernel, layer in zip(trajectory.g, weights.layers, strict=True):
        kernel.record(layer.g.latest)
    if keep_ntk:
        trajectory.ntk.append(fields.ntk(input_kernel))
