"""One training run of weights: the fields at a time, what is recorded of them, the gradient they give."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from dmft_engine.errors import NotFinite
from dmft_engine.model.fields import Fields
from dmft_engine.model.networks import AnyWeights, passes
from dmft_engine.problem import Problem
from dmft_engine.record.trajectory import Trajectory
from dmft_engine.state import Stateful
from dmft_engine.training.reporter import Reporter
from dmft_engine.training.rollout import Rollout, advanced
from dmft_engine.training.rounding import Imprecise, Rounding
from dmft_engine.training.truncation import Truncation
from dmft_engine.weights.parameter import Update


class TrainingRun(Stateful):
    """What gradient descent and gradient flow share: they differ in when they move the weights.

    Attributes:
        problem: data, network and training; its method is not looked at.
        weights: trained in place.
        trajectory: holds all that was reached, also when training raises.
        rollout: judges the predictions.
    """

    kept: ClassVar[tuple[str, ...]] = (
        "weights",
        "trajectory",
        "_initial_output",
        "_rolled_out",
        "_rounding",
        "_truncation",
        "rollout",
    )

    def __init__(
        self,
        problem: Problem,
        weights: AnyWeights,
        trajectory: Trajectory,
        reporter: Reporter,
        readout: str,
        input_kernel: Tensor,
        rounding: Rounding | None = None,
        truncation: Truncation | None = None,
    ) -> None:
        """
        Args:
            problem: see above.
            weights: at initialisation.
            trajectory: empty; filled step by step.
            reporter: told of each step.
            readout: exact or ntk (theory section 1).
            input_kernel: [P, P] joint kernel K^x, on the weights' device.
            rounding, truncation: told of each step, if they matter to the caller.
        """
        self.problem = problem
        self.weights = weights
        self.trajectory = trajectory
        self._reporter = reporter
        self._exact = readout == "exact"
        self._kernel = input_kernel
        self._propagate = passes(problem.network, weights)
        self.rollout = Rollout(problem, input_kernel)
        self._kernel_steps = set(problem.kernel_steps.tolist())
        # With weight decay the output at t = 0 does not stay: there is nothing fixed to subtract.
        self._centred = problem.training.weight_decay == 0
        self._initial_output: Tensor | None = None
        self._rounding = rounding
        self._truncation = truncation
        self._rolled_out: Tensor | None = None

    def fields(self, step: int) -> Fields:
        """At the current weights; `step` is for the message if they are not finite."""
        # Gradients at test points move no weight; only the ntk readout needs them, to move f there.
        points = self.problem.data.points if self._exact else len(self.problem.data.kernel)
        try:
            fields = self._propagate(points)
        except NotFinite:
            raise self._left_the_numbers(step) from None
        if self._initial_output is None:
            self._initial_output = fields.output
            self._rolled_out = None if self._exact else torch.zeros_like(fields.output)
            self._judge_rate(fields)
        return fields

    def _judge_rate(self, fields: Fields) -> None:
        """Say beforehand what the kernel at t = 0 has against the learning rate."""
        self.rollout.judge_rate(fields.ntk(self._kernel).mean(0))
        self.trajectory.notes += self.rollout.notes
        self.rollout.warn(self._reporter)

    def _left_the_numbers(self, step: int) -> Exception:
        """What has happened when a field is not finite: divergence, or too small a dtype for the first."""
        if step == 0 and self._rounding is not None and self._kernel.dtype != torch.float64:
            return Imprecise("the fields at t = 0 leave the numbers of float32")
        return self.rollout.stability.diverged(step)

    @property
    def strength(self) -> float:
        """gamma0 as it stands in the gradient step."""
        return self.problem.network.gamma0

    def predictions(self, fields: Fields, step: int) -> Tensor:
        """f of all points at a step [R, A, C]: read off the fields, or rolled out with the ntk."""
        assert self._initial_output is not None
        if self._rolled_out is not None:
            return self._rolled_out
        # f = w . phi(h^L) / (gamma0 N), centred so that f(0) = 0.
        output = fields.output - self._initial_output if self._centred else fields.output
        return output / (self.problem.network.gamma0 * self.weights.samples)

    def record(self, step: int, fields: Fields, f: Tensor) -> float:
        """Keep what is wanted of a recorded time. Returns its loss.

        Raises:
            Diverged: the loss is not finite or has exploded.
            Imprecise, TooLittlePrecision: see Rounding.
        """
        loss = self.rollout.checked_loss(f, step)
        recorded = len(self.trajectory.predictions)
        try:
            self._keep(step, fields, f)
        except NotFinite:
            if len(self.trajectory.predictions) > recorded:
                self.trajectory.forget_step()
            raise self._left_the_numbers(step) from None
        return loss

    def report(self, loss: float) -> None:
        """Report the time that was last recorded.

        Raises:
            Cancelled: the caller asked to stop.
        """
        self._reporter.step("training", loss, max(self.trajectory.basis_sizes.values()))

    def _keep(self, step: int, fields: Fields, f: Tensor) -> None:
        errors = self.rollout.errors(f)
        if self._rounding is not None:
            (readout,) = self.weights.readout.parameters()
            self._rounding.observe(step, fields, errors, readout.value)
        self.trajectory.record_step(f, self.weights)
        if self._truncation is not None:
            self._truncation.observe(step, fields, self.weights, errors, self._kernel)
        self.trajectory.record_responses(fields, self.weights)
        if step in self._kernel_steps:
            self.trajectory.record_kernels(step, fields, self.weights, self._kernel)
        if self.trajectory.fields.wants(step):
            self.trajectory.fields.record(step, fields)

    def update(self, fields: Fields, f: Tensor, weighting: Tensor, optimiser: Update) -> None:
        """Move the weights along the gradient.

        Args:
            fields, f: at the current weights.
            weighting: [P], what each point's error counts: eta / P, say.
            optimiser: what the step does with gradients.
        """
        pull = self.rollout.pull(f, weighting)
        if not self._exact:
            self._rolled_out = advanced(f.mT, fields.ntk(self._kernel), pull.mT).mT
        self.weights.update(fields, self.strength * pull.mT, optimiser)
