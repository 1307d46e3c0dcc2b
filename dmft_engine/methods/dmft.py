"""The infinite-width limit, by revealing random matrices as training visits them (theory section 2)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from dmft_engine.devices import check_room
from dmft_engine.errors import TooFewSamples
from dmft_engine.methods.method import Method, StartOver
from dmft_engine.methods.precision import judge_longer, name_of
from dmft_engine.populations.population import Exhausted
from dmft_engine.problem import Problem
from dmft_engine.record.solution import Solution
from dmft_engine.record.trajectory import Trajectory
from dmft_engine.state import State
from dmft_engine.training.dynamics import trainer
from dmft_engine.training.reporter import Reporter
from dmft_engine.training.rounding import Imprecise, Rounding, check_scale, in_float64
from dmft_engine.training.trainer import Trainer
from dmft_engine.training.training_run import TrainingRun
from dmft_engine.training.truncation import Truncation
from dmft_engine.weights.initialisation import joint_kernel, revealed_weights
from dmft_schema import DmftMethod, GradientIndependenceMethod
from dmft_schema.limits import MAX_SAMPLES
from dmft_schema.memory import MOST_KNOWN, Demand

KERNEL_RESOLUTION = 0.3
"""Error of kernels written as factors, over what truncation leaves out of them: tolerance squared."""


class Dmft(Method):
    """Solves the limit itself; errors by replicas, truncation and rounding."""

    def __init__(self, problem: Problem, device: str, responses: bool = True) -> None:
        """`responses` False leaves out A and B: gradient independence."""
        if not isinstance(problem.method, DmftMethod | GradientIndependenceMethod):
            raise TypeError(f"Dmft cannot take the options of {problem.method.name}")
        self._responses = responses
        self._problem = problem
        self._method = problem.method
        self._device = device
        self._dtype = getattr(torch, problem.method.dtype)
        self._notes: list[str] = []
        self._trainer: Trainer | None = None
        self._trajectory: Trajectory | None = None
        self._rounding: Rounding | None = None
        self._truncation: Truncation | None = None
        self._demand = Demand.of(problem, problem.data.sizes)
        self._samples = self._begun_with = min(
            self._method.samples or self._demand.enough_samples, MAX_SAMPLES
        )

    def _per_replica(self, samples: int) -> int:
        return -(-samples // self._method.replicas)

    @property
    def work(self) -> int:
        return self._problem.training.steps

    @property
    def done(self) -> bool:
        return self._trainer is not None and self._trainer.done

    def advance(self, reporter: Reporter) -> None:
        try:
            if self._trainer is None:
                self._trainer = self._begin(reporter)
            return self._trainer.advance()
        except Imprecise as imprecise:
            self._in_dtype(torch.float64)
            self._notes.append(in_float64(imprecise))
            again = "begun again in float64"
        except Exhausted as full:
            if self._method.samples is not None or 2 * self._samples > MAX_SAMPLES:
                raise self._too_few(full.known) from full
            self._samples *= 2
            again = f"begun again with {self._samples} samples"
        # Of what was reached only the records are kept: the bases are the bulk of the memory.
        self._trainer = None
        check_room(replace(self._demand, samples=self._samples), self._device)
        reporter.restart(again)

    def _in_dtype(self, dtype: torch.dtype) -> None:
        self._dtype, self._demand = dtype, replace(self._demand, itemsize=dtype.itemsize)

    def _begin(self, reporter: Reporter) -> Trainer:
        """Weights at t = 0, and their records."""
        method = self._method
        samples = self._per_replica(self._samples)
        kernel = joint_kernel(self._problem, self._device)
        check_scale(kernel, self._dtype)
        self._trajectory = Trajectory.empty(self._problem, samples)
        self._rounding = Rounding(self._problem, exact=method.readout == "exact", dense=False)
        self._truncation = Truncation(self._problem)
        weights = revealed_weights(
            self._problem,
            method.replicas,
            samples,
            method.tolerance,
            method.seed,
            self._dtype,
            self._device,
            self._responses,
        )
        run = TrainingRun(
            self._problem,
            weights,
            self._trajectory,
            reporter,
            method.readout,
            kernel.to(self._dtype),
            self._rounding,
            self._truncation,
        )
        return trainer(run)

    def state(self) -> State:
        return {
            "begun_with": self._begun_with,
            "samples": self._samples,
            "dtype": name_of(self._dtype),
            "notes": list(self._notes),
            "trainer": self._trainer.state() if self._trainer else None,
        }

    def restore(self, state: State, reporter: Reporter, longer: bool) -> None:
        named = self._method.samples
        if self._begun_with != (state["begun_with"] if named is None else state["samples"]):
            raise StartOver(
                f"this run begins with {self._begun_with} samples, that before had {state['samples']}: name "
                f"method.samples {state['samples']} to go on with them"
            )
        self._samples, self._notes = state["samples"], list(state["notes"])
        self._in_dtype(getattr(torch, state["dtype"]))
        if state["trainer"] is None:
            return
        self._trainer = self._begin(reporter)
        self._trainer.restore(state["trainer"])
        if longer:
            assert self._rounding is not None
            judge_longer(self._rounding)

    def _too_few(self, known: int) -> TooFewSamples:
        """How many samples would do: known directions grow about as the logarithm of time."""
        assert self._trajectory is not None
        step, steps = len(self._trajectory.predictions), self._problem.training.steps
        growth = 1 + 1.5 * math.log2(steps / max(step, 1))
        per_replica = 2 ** math.ceil(math.log2(known * growth / MOST_KNOWN))
        enough = per_replica * self._method.replicas
        message = (
            f"training visits more than {known} directions by step {step}, too many for the "
            f"{self._per_replica(self._samples)} sampled neurons of each replica"
        )
        advice = f"Set method.samples to {enough}"
        if enough > MAX_SAMPLES:
            advice = (
                f"This needs about {enough} samples (limit: {MAX_SAMPLES}): use fewer points, fewer "
                f"steps, or fewer replicas than {self._method.replicas}"
            )
        return TooFewSamples(message, f"{advice}, or raise method.tolerance.", step)

    def solution(self) -> Solution | None:
        if self._trajectory is None or not self._trajectory.predictions:
            return None
        solution = self._trajectory.solution(self._problem)
        assert self._rounding is not None
        solution.rounding = np.array(self._rounding.errors[: len(self._trajectory.predictions)])
        solution.computed_in = name_of(self._dtype)
        solution.notes = [*self._notes, *solution.notes]
        solution.truncation = self._truncation
        # What the bases leave out of a field is at most the tolerance, relative to the longest.
        solution.kernel_resolution = KERNEL_RESOLUTION * self._method.tolerance**2
        solution.basis_sizes = self._trajectory.basis_sizes
        solution.samples = self._samples
        solution.replicas = self._method.replicas
        solution.seed = self._method.seed
        return solution
