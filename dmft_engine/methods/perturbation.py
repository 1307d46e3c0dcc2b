"""Leading-order perturbation theory in gamma0^2 about the lazy limit (theory section 5)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from dmft_engine.errors import Diverged, TooFewSamples
from dmft_engine.methods.static_ntk import StaticNtk
from dmft_engine.model.losses import reported_and_errors
from dmft_engine.model.recipe import Recipe
from dmft_engine.populations.population import Exhausted
from dmft_engine.problem import Problem
from dmft_engine.record.solution import Arrays, Solution, standard_error
from dmft_engine.theory.second_order import BySampling, ClosedForm, SecondOrder
from dmft_engine.training.reporter import Reporter
from dmft_engine.training.stability import Stability
from dmft_schema import PerturbationMethod
from dmft_schema.support import has_algebraic_theory


class Perturbation:
    """Kernels K_0 + gamma0^2 K_1(t, s), with K_1 along the lazy dynamics, and f advanced with their NTK."""

    def __init__(self, problem: Problem, device: str) -> None:
        if not isinstance(problem.method, PerturbationMethod):
            raise TypeError("Perturbation needs a PerturbationMethod")
        self._problem = problem
        self._method = problem.method
        self._device = device
        self._closed = has_algebraic_theory(problem) and problem.data.outputs == 1
        self._lazy = StaticNtk(problem, device)
        self._second: SecondOrder | None = None
        self._predictions: list[NDArray] = []
        self._ntk: list[NDArray] = []

    @property
    def work(self) -> int:
        # Two runs by sampling, and the predictions.
        return self._problem.training.steps * (1 if self._closed else 3)

    def run(self, reporter: Reporter) -> None:
        problem, method = self._problem, self._method
        failure: Diverged | None = None
        try:
            self._lazy.run(Reporter(problem.training.steps, None, None))
        except Diverged as diverged:
            if not self._closed or not self._lazy.predictions.size:
                raise
            failure = diverged
        lazy = self._lazy.predictions
        if self._closed:
            self._second = ClosedForm(problem, lazy)
        else:
            try:
                self._second = BySampling(problem, lazy, reporter, self._device)
            except Exhausted as full:
                raise TooFewSamples(
                    f"the lazy dynamics visits more than {full.known} directions, too many for the "
                    f"{method.samples // method.replicas} sampled neurons of each replica",
                    f"Set method.samples to {2 * method.samples} or more.",
                ) from full
        points, square = problem.data.points, problem.network.gamma0**2
        recipe = Recipe(problem.training, points)
        at_start = self._lazy.ntk
        f = np.zeros((self._members, *lazy.shape[1:]))
        stability = Stability.of(
            problem.training, torch.from_numpy(at_start[:points, :, :points]).transpose(0, 1).transpose(2, 3)
        )
        for step in range(len(lazy)):
            ntk = at_start + square * self._second.ntk(step)
            found = [
                reported_and_errors(problem.training.loss, own[:points], problem.data.targets) for own in f
            ]
            loss = float(np.mean([reported for reported, _ in found]))
            stability.check(loss, step)
            self._predictions.append(f)
            self._ntk.append(ntk[:, :points, :, :points])
            reporter.step("training", loss)
            weighted = recipe.weights(step)[:, None] * np.array([errors for _, errors in found])
            f = f + np.einsum("racbd,rbd->rac", ntk[:, :, :, :points], weighted)
        if failure is not None:
            raise failure

    @property
    def _members(self) -> int:
        return 1 if self._closed else self._method.replicas

    def solution(self) -> Solution | None:
        if not self._predictions:
            return None
        problem = self._problem
        steps = [int(step) for step in problem.kernel_steps if step < len(self._predictions)]
        ntk = ntk_error = None
        if "ntk" in problem.outputs.kernels:
            members = np.array([self._ntk[t] for t in steps])
            ntk, ntk_error = members.mean(1), standard_error(members.swapaxes(0, 1))
        sampled = not self._closed
        return Solution(
            predictions=np.array(self._predictions).swapaxes(0, 1),
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
