"""Leading-order perturbation theory in gamma0^2 about the lazy limit (theory section 5)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmft_engine.errors import Diverged, TooFewSamples
from dmft_engine.methods.method import Method, StartOver
from dmft_engine.methods.static_ntk import StaticNtk
from dmft_engine.model.recipe import Recipe
from dmft_engine.populations.population import Exhausted
from dmft_engine.problem import Problem
from dmft_engine.record.solution import Arrays, Solution, standard_error
from dmft_engine.state import State
from dmft_engine.theory.second_order import BySampling, ClosedForm, SecondOrder
from dmft_engine.training.reporter import Reporter
from dmft_engine.training.rollout import Rollout
from dmft_schema import PerturbationMethod
from dmft_schema.support import has_algebraic_theory


class Perturbation(Method):
    """Kernels K_0 + gamma0^2 K_1(t, s), with K_1 along the lazy dynamics, and f advanced with their NTK."""

    def __init__(self, problem: Problem, device: str) -> None:
        if not isinstance(problem.method, PerturbationMethod):
            raise TypeError("Perturbation needs a PerturbationMethod")
        self._problem = problem
        self._method = problem.method
        self._device = device
        self._closed = has_algebraic_theory(problem) and problem.data.outputs == 1
        self._recipe = Recipe(problem.training, problem.data.points)
        self._lazy = StaticNtk(problem, device)
        self._failure: Diverged | None = None
        """Of the lazy dynamics; what was reached before is still expanded about."""
        self._at_start = np.empty(0)
        """K_0 of all points [A, C, A, C], once the lazy dynamics is known."""
        self._second: SecondOrder | None = None
        self._rollout = Rollout(problem, torch.empty(0, dtype=torch.float64))
        self._f = torch.zeros(self._members, len(problem.data.kernel), problem.data.outputs).double()
        self._predictions: list[Tensor] = []

    @property
    def work(self) -> int:
        # Two runs by sampling, and the predictions.
        return self._problem.training.steps * (1 if self._closed else 3)

    @property
    def done(self) -> bool:
        return len(self._predictions) == self._problem.training.steps

    def advance(self, reporter: Reporter) -> None:
        if self._second is None:
            self._second = self._about_the_lazy_dynamics()
        if self._second.done:
            return self._predict(self._second, reporter)
        try:
            self._second.advance(reporter)
        except Exhausted as full:
            method = self._method
            raise TooFewSamples(
                f"the lazy dynamics visits more than {full.known} directions, too many for the "
                f"{method.samples // method.replicas} sampled neurons of each replica",
                f"Set method.samples to {2 * method.samples} or more.",
            ) from full

    def _about_the_lazy_dynamics(self) -> SecondOrder:
        """Kernels of second order along the lazy dynamics, which is solved here."""
        problem = self._problem
        try:
            self._lazy.run(Reporter(problem.training.steps, None, None))
        except Diverged as diverged:
            if not self._closed or not self._lazy.predictions.size:
                raise
            self._failure = diverged
        self._at_start = self._lazy.ntk
        self._rollout.judge_rate(torch.from_numpy(self._at_start).permute(1, 0, 3, 2))
        if self._closed:
            return ClosedForm(problem, self._lazy.predictions)
        return BySampling(problem, self._lazy.predictions, self._device)

    def _predict(self, second: SecondOrder, reporter: Reporter) -> None:
        """The next step of f, with the NTK of second order."""
        step = len(self._predictions)
        if self._failure is not None and step == len(self._lazy.predictions):
            raise self._failure
        f = self._f
        loss = self._rollout.checked_loss(f, step)
        points = self._problem.data.points
        pull = self._rollout.pull(f, self._recipe.weighting(step, f))[:, :points]
        # As `advanced`, of numpy's arrays.
        moved = np.einsum("racbd,rbd->rac", self._ntk(second, step)[:, :, :, :points], pull.numpy())
        self._f = f + torch.from_numpy(moved)
        self._predictions.append(f)
        reporter.step("training", loss)

    def _ntk(self, second: SecondOrder, step: int) -> NDArray:
        """K_0 + gamma0^2 K_1(t, t), [R, A, C, A, C]."""
        return self._at_start + self._problem.network.gamma0**2 * second.ntk(step)

    def state(self) -> State:
        return {
            "second": self._second.state() if self._second else None,
            "rollout": self._rollout.state(),
            "f": self._f.clone(),
            "predictions": [f.clone() for f in self._predictions],
        }

    def restore(self, state: State, reporter: Reporter, longer: bool) -> None:
        if longer:
            raise StartOver("the lazy dynamics is solved first, to its end")
        if state["second"] is None:
            return
        self._second = self._about_the_lazy_dynamics()
        self._second.restore(state["second"], reporter)
        self._rollout.restore(state["rollout"])
        self._f, self._predictions = state["f"].clone(), list(state["predictions"])

    @property
    def _members(self) -> int:
        return 1 if self._closed else self._method.replicas

    def solution(self) -> Solution | None:
        if not self._predictions:
            return None
        problem = self._problem
        steps = [int(step) for step in problem.kernel_steps if step < len(self._predictions)]
        ntk = ntk_error = None
        if "ntk" in problem.outputs.kernels and steps:
            assert self._second is not None
            points = problem.data.points
            members = np.array([self._ntk(self._second, t)[:, :points, :, :points] for t in steps])
            ntk, ntk_error = members.mean(1), standard_error(members.swapaxes(0, 1))
        sampled = not self._closed
        return Solution(
            predictions=torch.stack(self._predictions, dim=1).numpy(),
            kernel_steps=steps,
            phi=[],
            g=[],
            ntk=ntk,
            ntk_standard_error=ntk_error,
            samples=self._method.samples if sampled else None,
            replicas=self._method.replicas if sampled else None,
            seed=self._method.seed if sampled else None,
            kernel_error=self._lazy.kernel_error,
            notes=list(self._lazy.notes),
            arrays=self._two_time_kernels(steps),
        )

    def _two_time_kernels(self, steps: list[int]) -> Arrays:
        """phi_{l} and g_{l}, dense: not positive semidefinite in general, so never as factors."""
        arrays: Arrays = {}
        if self._second is None or not steps:
            return arrays
        square, outputs = self._problem.network.gamma0**2, self._problem.data.outputs
        points = self._problem.data.points
        identity = np.eye(outputs)
        for layer, (phi, g) in enumerate(self._lazy.kernels, start=1):
            at_start = {
                "phi": phi[:points, :points],
                "g": np.einsum("pq,cd->pcqd", g[:points, :points], identity),
            }
            for name in ("phi", "g"):
                if name not in self._problem.outputs.kernels:
                    continue
                change = self._second.phi if name == "phi" else self._second.g
                rows = [[change(layer, t, s) for s in steps] for t in steps]
                # [K, K, R, points.., points..] -> [R, K, points.., K, points..]
                both = at_start[name] + square * np.moveaxis(np.array(rows), 2, 0)
                half = (both.ndim - 3) // 2
                members = np.moveaxis(both, 2, 2 + half)
                if name == "g" and outputs == 1:
                    members = members[:, :, :, 0, :, :, 0]
                arrays[f"{name}_{layer}"] = members.mean(0)
                same = np.arange(len(steps))
                between = np.moveaxis(members, members.ndim // 2 + 1, 2)[:, same, same]
                error = standard_error(between)
                if error is not None:
                    arrays[f"{name}_{layer}_standard_error"] = error
        return arrays
