"""Gradient flow: the limit of small learning rates, integrated by an embedded Runge-Kutta pair.

theta'(tau) = -gradient - lambda theta in learning time tau = eta t, by the third-order pair of Bogacki and
Shampine (1989; the tableau is scipy's). Steps are cut to end at the recorded times, which lie close
together: a pair of higher order would not take longer steps.
"""

from __future__ import annotations

import math

import torch
from scipy.integrate import RK23
from torch import Tensor

from dmft_engine.errors import Diverged, SolveFailure
from dmft_engine.model.fields import Fields
from dmft_engine.training.optimisers import Slope
from dmft_engine.training.training_run import TrainingRun
from dmft_engine.weights.parameter import Parameter

SAFETY = 0.9
MOST_CHANGE = 5.0
"""Steps grow and shrink by at most this factor at a time."""

SMALLEST_STEP = 1e-6
"""Over the time between records; steps that must be shorter end the solve."""


START = "start"
"""Slot of where a step started."""


class StepTooSmall(SolveFailure):
    code = "step_too_small"


def flow(run: TrainingRun) -> None:
    """Train by gradient flow, recording at every multiple of the learning rate."""
    training = run.problem.training
    integrator = _Integrator(run)
    for step in range(training.steps):
        run.record(step, integrator.fields, run.predictions(integrator.fields, step))
        if step + 1 < training.steps:
            integrator.advance(step)


class _Integrator:
    """Weights on their way along the flow.

    Attributes:
        fields: at the current weights.
    """

    def __init__(self, run: TrainingRun) -> None:
        self._run = run
        self._interval = run.problem.training.learning_rate
        # f = w . phi / (gamma0 N): what is an error of fields is one of f times 1 / gamma0.
        self._tolerance = run.problem.training.flow_tolerance * min(run.problem.network.gamma0, 1.0)
        self._length = self._interval
        self.fields = run.fields(0)

    def advance(self, step: int) -> None:
        """From one recorded time to the next.

        Raises:
            StepTooSmall: the tolerance cannot be met.
        """
        left = self._interval
        while left > 0:
            length = min(self._length, left)
            ratio = self._attempt(length, step) / self._tolerance
            # The pair's error is of third order in the length.
            change = min(max(SAFETY * max(ratio, 1e-9) ** (-1 / 3), 1 / MOST_CHANGE), MOST_CHANGE)
            if ratio <= 1:
                left = 0.0 if length == left else left - length
                # A step cut short by a recorded time is no reason to shorten the next.
                self._length = max(self._length, length * change) if left == 0 else length * change
            else:
                self._length = length * change
            if self._length < SMALLEST_STEP * self._interval:
                raise StepTooSmall(
                    f"gradient flow needs steps shorter than {self._length:.2g} of learning time after "
                    f"step {step} to keep its error below training.flow_tolerance",
                    f"Raise training.flow_tolerance (now {self._run.problem.training.flow_tolerance:g}), "
                    "or lower method.tolerance: directions that join between stages look like errors.",
                    step,
                )

    def _attempt(self, length: float, step: int) -> float:
        """Try one step. Returns its error, in units of the fields; the weights move if it is tolerable."""
        parameters = self._run.weights.parameters()
        for parameter in parameters:
            parameter.slots = {START: parameter.value}
        try:
            self._slope(0, self.fields, step)
            for stage, row in enumerate(RK23.A[1:], start=1):
                self._move([length * float(a) for a in row[:stage]])
                self._slope(stage, self._run.fields(step), step)
            self._move([length * float(b) for b in RK23.B])
            end = self._run.fields(step)
            self._slope(len(RK23.B), end, step)
            weights = [length * float(e) for e in RK23.E]
            error = max(
                float(_combined(p, weights).norm()) / p.unit / len(p.value) ** 0.5 for p in parameters
            )
        except Diverged:
            error = math.inf
        if error <= self._tolerance:
            self.fields = end
            return error
        for parameter in parameters:
            parameter.value = parameter.slots[START]
        # Afresh: directions may have joined, and a slope without them would differ from the next stage's.
        self.fields = self._run.fields(step)
        return error if math.isfinite(error) else math.inf

    def _move(self, amounts: list[float]) -> None:
        """Go to where the step started plus the slopes so far, times their amounts."""
        for parameter in self._run.weights.parameters():
            parameter.value = parameter.slots[START] + _combined(parameter, amounts)

    def _slope(self, stage: int, fields: Fields, step: int) -> None:
        run = self._run
        f = run.predictions(fields, step)
        points = run.problem.data.points
        weighting = torch.full((points,), 1 / points).to(f)
        run.update(fields, f, weighting, Slope(_slot(stage), run.problem.training.weight_decay))


def _slot(stage: int) -> str:
    return f"slope {stage}"


def _combined(parameter: Parameter, amounts: list[float]) -> Tensor:
    """Sum of the slopes of the first stages times their amounts."""
    slopes = (parameter.slots[_slot(stage)] for stage in range(len(amounts)))
    return torch.stack([amount * slope for amount, slope in zip(amounts, slopes, strict=True)]).sum(0)
