"""Leading-order perturbation theory in gamma0^2 about the lazy limit (theory section 5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dmft_engine.losses import reported_and_errors
from dmft_engine.problem import Problem
from dmft_engine.recipe import Recipe
from dmft_engine.reporter import Reporter
from dmft_engine.solution import Arrays, Solution
from dmft_engine.training_run import check_convergent


class Perturbation:
    """Deep linear networks in closed form: kernels K_0 + gamma0^2 K_1(t, s), K_1 along the lazy dynamics."""

    def __init__(self, problem: Problem, device: str) -> None:
        self._problem = problem
        self._depth = problem.network.depth
        self._recipe = Recipe(problem.training, problem.data.points)
        self._lazy: list[NDArray] = []
        self._predictions: list[NDArray] = []
        self._ntk: list[NDArray] = []

    @property
    def work(self) -> int:
        return self._problem.training.steps

    def run(self, reporter: Reporter) -> None:
        problem = self._problem
        kernel, points = problem.data.kernel, problem.data.points
        to_training = kernel[:, :points]
        lazy = f = np.zeros((len(kernel), 1))
        v = np.zeros((points, 1))
        moment = np.zeros((points, points))
        initial = 1.0
        for step in range(problem.training.steps):
            # v(t) = sum_{s<t} Delta(s),  V(t) = sum_{s<t} Delta(s) v(s)^T, with the weights eta / P inside.
            self._lazy.append(np.concatenate([v, moment], axis=1))
            ntk = self._ntk_at(self._lazy[-1])
            loss, errors = reported_and_errors(problem.training.loss, f[:points], problem.data.targets)
            initial = loss if step == 0 else initial
            check_convergent(loss, initial, step, problem.training.learning_rate)
            self._predictions.append(f)
            self._ntk.append(ntk[:points, :points])
            reporter.step("training", loss)
            weighting = self._recipe.weights(step)[:, None]
            f = f + ntk[:, :points] @ (weighting * errors)
            _, lazy_errors = reported_and_errors(problem.training.loss, lazy[:points], problem.data.targets)
            weighted = weighting * lazy_errors
            lazy = lazy + (self._depth + 1) * to_training @ weighted
            moment = moment + weighted @ v.T
            v = v + weighted

    def _phi_change(self, layer: int, t: NDArray, s: NDArray) -> NDArray:
        """H_1^l(t, s) = a_l (K v(t)) (K v(s))^T + b_l (K V(t) K + (K V(s) K)^T), [A, A]."""
        kernel = self._problem.data.kernel[:, : len(t)]
        below = np.arange(1, layer + 1)
        a, b = float((below**2).sum()), float((below * (self._depth - below + 1)).sum())
        moved = kernel @ t[:, 1:] @ kernel.T + (kernel @ s[:, 1:] @ kernel.T).T
        return a * np.outer(kernel @ t[:, 0], kernel @ s[:, 0]) + b * moved

    def _g_change(self, layer: int, t: NDArray, s: NDArray) -> float:
        """G_1^l(t, s) = a'_l v(t)^T K v(s) + b'_l (tr K V(t) + tr K V(s)); 0 for l = L + 1."""
        kernel = self._problem.data.kernel[: len(t), : len(t)]
        above = np.arange(layer, self._depth + 1)
        a, b = float(((self._depth - above + 1) ** 2).sum()), float((above * (self._depth - above + 1)).sum())
        traces = np.vdot(kernel, t[:, 1:]) + np.vdot(kernel, s[:, 1:])
        return float(a * t[:, 0] @ kernel @ s[:, 0] + b * traces)

    def _ntk_at(self, t: NDArray) -> NDArray:
        """K_0 + gamma0^2 sum_l (H_1^l + G_1^{l+1} K^x), [A, A]."""
        kernel, square = self._problem.data.kernel, self._problem.network.gamma0**2
        change = sum(self._g_change(layer + 1, t, t) for layer in range(self._depth)) * kernel
        for layer in range(1, self._depth + 1):
            change = change + self._phi_change(layer, t, t)
        return (self._depth + 1) * kernel + square * change

    def solution(self) -> Solution | None:
        if not self._predictions:
            return None
        problem = self._problem
        steps = [int(step) for step in problem.kernel_steps if step < len(self._predictions)]
        wanted = problem.outputs.kernels
        return Solution(
            predictions=np.array(self._predictions)[None],
            kernel_steps=steps,
            phi=[],
            g=[],
            ntk=np.array([self._ntk[t] for t in steps])[:, :, None, :, None] if "ntk" in wanted else None,
            arrays=self._two_time_kernels(steps),
        )

    def _two_time_kernels(self, steps: list[int]) -> Arrays:
        """phi_{l} and g_{l}, [K, P, K, P]: not positive semidefinite in general, so never as factors."""
        problem, points = self._problem, self._problem.data.points
        square = problem.network.gamma0**2
        kernel = problem.data.kernel[:points, :points]
        shape = (len(steps), points, len(steps), points)
        arrays: Arrays = {}
        for layer in range(1, self._depth + 1):
            phi, g = np.empty(shape), np.empty(shape)
            for i, t in enumerate(steps):
                for j, s in enumerate(steps):
                    change = self._phi_change(layer, self._lazy[t], self._lazy[s])[:points, :points]
                    phi[i, :, j] = kernel + square * change
                    g[i, :, j] = 1 + square * self._g_change(layer, self._lazy[t], self._lazy[s])
            if "phi" in problem.outputs.kernels:
                arrays[f"phi_{layer}"] = phi
            if "g" in problem.outputs.kernels:
                arrays[f"g_{layer}"] = g
        return arrays
