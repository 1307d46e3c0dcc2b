"""Dense networks of finite width, trained as they are: what the theory is compared with."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from dmft_engine.devices import check_room
from dmft_engine.methods.method import Method, StartOver
from dmft_engine.methods.precision import judge_longer, name_of
from dmft_engine.problem import Problem
from dmft_engine.record.solution import Solution
from dmft_engine.record.trajectory import Trajectory
from dmft_engine.state import State, Stateful
from dmft_engine.training.dynamics import trainer
from dmft_engine.training.reporter import Reporter
from dmft_engine.training.rounding import Imprecise, Rounding, check_scale, in_float64
from dmft_engine.training.trainer import Trainer
from dmft_engine.training.training_run import TrainingRun
from dmft_engine.weights.initialisation import dense_weights, joint_kernel
from dmft_schema import FiniteWidthMethod
from dmft_schema.memory import CHUNK_BYTES, Demand


@dataclass
class _Record(Stateful):
    """What is kept of a chunk."""

    kept: ClassVar[tuple[str, ...]] = ("trajectory", "rounding")

    trajectory: Trajectory
    rounding: Rounding


class FiniteWidth(Method):
    """An ensemble, batched over its members and bounded in memory."""

    def __init__(self, problem: Problem, device: str) -> None:
        if not isinstance(problem.method, FiniteWidthMethod):
            raise TypeError("FiniteWidth needs a FiniteWidthMethod")
        self._problem = problem
        self._method = problem.method
        self._device = device
        self._dtype = getattr(torch, problem.method.dtype)
        self._chunks = self._plan()
        self._records: list[_Record] = []
        """Of the chunks so far; that which is being trained is the last."""
        self._trainer: Trainer | None = None
        self._notes: list[str] = []

    def _plan(self) -> list[range]:
        method, network, data = self._method, self._problem.network, self._problem.data
        rows, matrices = network.rows_and_matrices(data.shape)
        points = data.points + data.test_points
        entries = method.width * (matrices * method.width + network.recorded * 8 * points * rows)
        size = max(1, CHUNK_BYTES["finite_width"] // (entries * self._dtype.itemsize))
        starts = range(0, method.ensemble, size)
        return [range(start, min(start + size, method.ensemble)) for start in starts]

    @property
    def work(self) -> int:
        return self._problem.training.steps * len(self._chunks)

    @property
    def done(self) -> bool:
        trained = len(self._records) == len(self._chunks)
        return trained and self._trainer is not None and self._trainer.done

    def advance(self, reporter: Reporter) -> None:
        if self._trainer is not None and self._trainer.done:
            self._trainer = None  # Of a chunk, only its record is kept.
        try:
            if self._trainer is None:
                self._trainer = self._begin(reporter)
            return self._trainer.advance()
        except Imprecise as imprecise:
            self._notes.append(in_float64(imprecise))
        self._trainer = None
        self._records.clear()
        self._in_dtype(torch.float64)
        demand = Demand.of(self._problem, self._problem.data.sizes)
        check_room(dataclasses.replace(demand, itemsize=8), self._device)
        reporter.restart("begun again in float64", self.work)

    def _in_dtype(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._chunks = self._plan()

    def _begin(self, reporter: Reporter) -> Trainer:
        """The next chunk's networks at t = 0, and their record."""
        kernel = joint_kernel(self._problem, self._device)
        check_scale(kernel, self._dtype)
        method, members = self._method, self._chunks[len(self._records)]
        weights = dense_weights(self._problem, method.width, members, method.seed, self._dtype, self._device)
        record = self._record()
        self._records.append(record)
        return trainer(
            TrainingRun(
                self._problem,
                weights,
                record.trajectory,
                reporter,
                "exact",
                kernel.to(self._dtype),
                record.rounding,
            )
        )

    def _record(self) -> _Record:
        trajectory = Trajectory.empty(self._problem, self._method.width, len(self._chunks))
        return _Record(trajectory, Rounding(self._problem, exact=True, dense=True))

    def state(self) -> State:
        finished = self._records[:-1] if self._trainer else self._records
        return {
            "dtype": name_of(self._dtype),
            "notes": list(self._notes),
            "finished": [record.state() for record in finished],
            "trainer": self._trainer.state() if self._trainer else None,
        }

    def restore(self, state: State, reporter: Reporter, longer: bool) -> None:
        self._notes = list(state["notes"])
        self._in_dtype(getattr(torch, state["dtype"]))
        if longer and len(self._chunks) > 1:
            raise StartOver("of an ensemble trained in several parts, the weights of one alone are kept")
        for kept in state["finished"]:
            self._records.append(self._record())
            self._records[-1].restore(kept)
        if state["trainer"] is None:
            return
        self._trainer = self._begin(reporter)
        self._trainer.restore(state["trainer"])
        if longer:
            judge_longer(self._records[-1].rounding)

    def solution(self) -> Solution | None:
        """Of the members that went furthest: those of a chunk that was cut short are left out,
        unless it is the only one."""
        steps = self._problem.training.steps
        complete = [record for record in self._records if len(record.trajectory.predictions) == steps]
        kept = complete or self._records[:1]
        if not kept or not kept[0].trajectory.predictions:
            return None
        length = len(kept[0].trajectory.predictions)
        solution = Trajectory.merge([record.trajectory for record in kept], self._problem)
        solution.rounding = np.max([record.rounding.errors[:length] for record in kept], axis=0)
        solution.computed_in = name_of(self._dtype)
        solution.notes = [*self._notes, *solution.notes]
        solution.replicas = solution.predictions.shape[0]
        solution.samples = self._method.width * solution.replicas
        solution.seed = self._method.seed
        return solution
