"""Dense networks of finite width, trained as they are: what the theory is compared with."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from dmft_engine.devices import check_room
from dmft_engine.problem import Problem
from dmft_engine.record.solution import Solution
from dmft_engine.record.trajectory import Trajectory
from dmft_engine.training.dynamics import train
from dmft_engine.training.reporter import Reporter
from dmft_engine.training.rounding import Imprecise, Rounding, check_scale, in_float64
from dmft_engine.training.training_run import TrainingRun
from dmft_engine.weights.initialisation import dense_weights, joint_kernel
from dmft_schema import FiniteWidthMethod
from dmft_schema.memory import CHUNK_BYTES, Demand


class FiniteWidth:
    """An ensemble, batched over its members and bounded in memory."""

    def __init__(self, problem: Problem, device: str) -> None:
        if not isinstance(problem.method, FiniteWidthMethod):
            raise TypeError("FiniteWidth needs a FiniteWidthMethod")
        self._problem = problem
        self._method = problem.method
        self._device = device
        self._dtype = getattr(torch, problem.method.dtype)
        self._chunks = self._plan()
        self._trajectories: list[Trajectory] = []
        self._roundings: list[Rounding] = []
        self._notes: list[str] = []

    def _plan(self) -> list[range]:
        method, depth = self._method, self._problem.network.depth
        points = self._problem.data.points + self._problem.data.test_points
        entries = depth * method.width * (method.width + 8 * points)
        size = max(1, CHUNK_BYTES["finite_width"] // (entries * self._dtype.itemsize))
        starts = range(0, method.ensemble, size)
        return [range(start, min(start + size, method.ensemble)) for start in starts]

    @property
    def work(self) -> int:
        return self._problem.training.steps * len(self._chunks)

    def run(self, reporter: Reporter) -> None:
        try:
            self._train(reporter)
        except Imprecise as imprecise:
            self._dtype = torch.float64
            self._chunks = self._plan()
            self._trajectories.clear()
            self._roundings.clear()
            self._notes.append(in_float64(imprecise))
            demand = Demand.of(self._problem, self._problem.data.sizes)
            check_room(dataclasses.replace(demand, itemsize=8), self._device)
            reporter.restart("begun again in float64", self.work)
            self._train(reporter)

    def _train(self, reporter: Reporter) -> None:
        kernel = joint_kernel(self._problem, self._device)
        check_scale(kernel, self._dtype)
        kernel = kernel.to(self._dtype)
        for members in self._chunks:
            method = self._method
            weights = dense_weights(
                self._problem, method.width, members, method.seed, self._dtype, self._device
            )
            trajectory = Trajectory.empty(self._problem, method.width, len(self._chunks))
            rounding = Rounding(self._problem, exact=True, dense=True)
            self._trajectories.append(trajectory)
            self._roundings.append(rounding)
            train(TrainingRun(self._problem, weights, trajectory, reporter, "exact", kernel, rounding))

    def solution(self) -> Solution | None:
        """Of the members that went furthest: those of a chunk that was cut short are left out,
        unless it is the only one."""
        runs = list(zip(self._trajectories, self._roundings, strict=True))
        complete = [run for run in runs if len(run[0].predictions) == self._problem.training.steps]
        kept = complete or runs[:1]
        if not kept or not kept[0][0].predictions:
            return None
        length = len(kept[0][0].predictions)
        solution = Trajectory.merge([trajectory for trajectory, _ in kept], self._problem)
        solution.rounding = np.max([rounding.errors[:length] for _, rounding in kept], axis=0)
        solution.computed_in = str(self._dtype).removeprefix("torch.")
        solution.notes = [*self._notes, *solution.notes]
        solution.replicas = solution.predictions.shape[0]
        solution.samples = self._method.width * solution.replicas
        solution.seed = self._method.seed
        return solution
