"""Gradient flow: the limit of small learning rates, integrated by an embedded Runge-Kutta pair.

theta'(tau) = -gradient - lambda theta in learning time tau = eta t, by the third-order pair of Bogacki and
Shampine (1989; the tableau is scipy's). Steps are cut to end at the recorded times, which lie close
together: a pair of higher order would not take longer steps.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from scipy.integrate import RK23
from torch import Tensor

from dmft_engine.errors import Diverged, SolveFailure
from dmft_engine.model.fields import Fields
from dmft_engine.training.optimisers import Slope
from dmft_engine.training.trainer import Trainer
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


class Flow(Trainer):
    """Weights on their way along the flow, recorded at every multiple of the learning rate.

    Between two steps the slope at the current weights lies in its slot: where the next step starts.
    """

    kept: ClassVar[tuple[str, ...]] = (*Trainer.kept, "_length")

    def __init__(self, run: TrainingRun) -> None:
        super().__init__(run)
        self._interval = run.problem.training.learning_rate
        # f = w . phi / (gamma0 N): what is an error of fields is one of f times 1 / gamma0.
        self._tolerance = run.problem.training.flow_tolerance * min(run.problem.network.gamma0, 1.0)
        self._length = self._interval

    def _next(self) -> float:
        step = self.step
        fields = self._from_time(step - 1) if step else self._begun(step)
        return self.run.record(step, fields, self.run.predictions(fields, step))

    def _from_time(self, step: int) -> Fields:
        """From one recorded time to the next. Returns the fields there.

        Raises:
            StepTooSmall: the tolerance cannot be met.
        """
        left = self._interval
        while left > 0:
            length = min(self._length, left)
            error, fields = self._attempt(length, step)
            ratio = error / self._tolerance
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
                    f"Raise training.flow_tolerance (now {self.run.problem.training.flow_tolerance:g}), "
                    "or lower method.tolerance: directions that join between stages look like errors.",
                    step,
                )
        return fields

    def _begun(self, step: int) -> Fields:
        """The fields at the current weights, and their slope as the first of a step."""
        fields = self.run.fields(step)
        self._slope(0, fields, step)
        return fields

    def _attempt(self, length: float, step: int) -> tuple[float, Fields]:
        """Try one step; the weights move if its error is tolerable.

        Returns:
            The error, in units of the fields, and the fields at the weights as they are now.
        """
        parameters = self.run.weights.parameters()
        for parameter in parameters:
            parameter.slots = {START: parameter.value, _slot(0): parameter.slots[_slot(0)]}
        try:
            for stage, row in enumerate(RK23.A[1:], start=1):
                self._move([length * float(a) for a in row[:stage]])
                self._slope(stage, self.run.fields(step), step)
            self._move([length * float(b) for b in RK23.B])
            end = self.run.fields(step)
            self._slope(len(RK23.B), end, step)
            weights = [length * float(e) for e in RK23.E]
            error = max(
                float(_combined(p, weights).norm()) / p.unit / len(p.value) ** 0.5 for p in parameters
            )
        except Diverged:
            error = math.inf
        if error <= self._tolerance:
            for parameter in parameters:
                # The last slope of a step is the first of the next.
                parameter.slots = {_slot(0): parameter.slots[_slot(len(RK23.B))]}
            return error, end
        for parameter in parameters:
            parameter.value = parameter.slots[START]
        # Afresh: directions may have joined, and a slope without them would differ from the next stage's.
        return error if math.isfinite(error) else math.inf, self._begun(step)

    def _move(self, amounts: list[float]) -> None:
        """Go to where the step started plus the slopes so far, times their amounts."""
        for parameter in self.run.weights.parameters():
            parameter.value = parameter.slots[START] + _combined(parameter, amounts)

    def _slope(self, stage: int, fields: Fields, step: int) -> None:
        run = self.run
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
