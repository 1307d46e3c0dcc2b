"""Second-order change K_1 of the kernels along the lazy dynamics: K = K_0 + gamma0^2 K_1 (theory section 5).

Of deep linear networks in closed form; of all others from two runs of the solver of `dmft` at +-epsilon,
whose errors are those of the lazy dynamics. In the mean over both signs odd orders cancel, and with them
the noise of first order, since both runs draw the same random vector for the same direction up to its sign
(subspace.py); what is left beside K_1 is of order epsilon^2.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmft_engine.model.fields import Fields
from dmft_engine.model.losses import reported_and_errors
from dmft_engine.model.recipe import Recipe
from dmft_engine.problem import Problem
from dmft_engine.record.trajectory import Trajectory
from dmft_engine.training.gradient_descent import descend
from dmft_engine.training.reporter import Reporter
from dmft_engine.training.training_run import TrainingRun
from dmft_engine.weights.initialisation import joint_kernel, revealed_weights
from dmft_engine.weights.weights import Weights
from dmft_schema import PerturbationMethod

EPSILON = 0.01
"""Strength to begin with."""

CHANGES = (1e-6, 1e-3)
"""Of the NTK in a run, relative: less is near what the bases leave out, more is no longer second order."""

ATTEMPTS = 6
TOLERANCE = 1e-5
"""Of the bases: far below epsilon. (At 1e-7 K_1 is the same to 1e-5, for fifty times the time.)"""


class SecondOrder(Protocol):
    """K_1 of R members (1 if exact), for A points of which P train, and C outputs."""

    def ntk(self, step: int) -> NDArray:
        """[R, A, C, A, C] at one time."""

    def phi(self, layer: int, t: int, s: int) -> NDArray:
        """[R, P, P] between two kernel times, l = 1..L."""

    def g(self, layer: int, t: int, s: int) -> NDArray:
        """[R, P, C, P, C] between two kernel times, l = 1..L."""


class ClosedForm:
    """Deep linear networks with one output."""

    def __init__(self, problem: Problem, lazy: NDArray) -> None:
        """`lazy` [T, A, 1]: predictions of the lazy dynamics."""
        self._depth = problem.network.depth
        self._kernel = problem.data.kernel
        points = problem.data.points
        recipe = Recipe(problem.training, points)
        v, moment = np.zeros((points, 1)), np.zeros((points, points))
        self._moments: list[NDArray] = []
        for step, f in enumerate(lazy):
            # v(t) = sum_{s<t} Delta(s),  V(t) = sum_{s<t} Delta(s) v(s)^T, with the weights eta / P inside.
            self._moments.append(np.concatenate([v, moment], axis=1))
            _, errors = reported_and_errors(problem.training.loss, f[:points], problem.data.targets)
            weighted = recipe.weights(step)[:, None] * errors
            moment = moment + weighted @ v.T
            v = v + weighted

    def ntk(self, step: int) -> NDArray:
        """sum_l (H_1^l + G_1^{l+1} K^x)."""
        change = sum(self._g_scalar(layer + 1, step, step) for layer in range(self._depth)) * self._kernel
        for layer in range(1, self._depth + 1):
            change = change + self._phi(layer, step, step)
        return change[None, :, None, :, None]

    def phi(self, layer: int, t: int, s: int) -> NDArray:
        points = len(self._moments[0])
        return self._phi(layer, t, s)[None, :points, :points]

    def g(self, layer: int, t: int, s: int) -> NDArray:
        points = len(self._moments[0])
        return np.full((1, points, 1, points, 1), self._g_scalar(layer, t, s))

    def _phi(self, layer: int, t: int, s: int) -> NDArray:
        """H_1^l(t, s) = a_l (K v(t)) (K v(s))^T + b_l (K V(t) K + (K V(s) K)^T), [A, A]."""
        at_t, at_s = self._moments[t], self._moments[s]
        kernel = self._kernel[:, : len(at_t)]
        below = np.arange(1, layer + 1)
        a, b = float((below**2).sum()), float((below * (self._depth - below + 1)).sum())
        moved = kernel @ at_t[:, 1:] @ kernel.T + (kernel @ at_s[:, 1:] @ kernel.T).T
        return a * np.outer(kernel @ at_t[:, 0], kernel @ at_s[:, 0]) + b * moved

    def _g_scalar(self, layer: int, t: int, s: int) -> float:
        """G_1^l(t, s) = a'_l v(t)^T K v(s) + b'_l (tr K V(t) + tr K V(s)); 0 for l = L + 1."""
        at_t, at_s = self._moments[t], self._moments[s]
        kernel = self._kernel[: len(at_t), : len(at_t)]
        above = np.arange(layer, self._depth + 1)
        a, b = float(((self._depth - above + 1) ** 2).sum()), float((above * (self._depth - above + 1)).sum())
        traces = np.vdot(kernel, at_t[:, 1:]) + np.vdot(kernel, at_s[:, 1:])
        return float(a * at_t[:, 0] @ kernel @ at_s[:, 0] + b * traces)


class _LazyRun(TrainingRun):
    """Training at a small strength whose errors are those of the lazy dynamics.

    Attributes:
        ntk: K(t, t) of all points, [R, C, A, C, A] at each step.
    """

    def __init__(
        self,
        problem: Problem,
        weights: Weights,
        trajectory: Trajectory,
        reporter: Reporter,
        lazy: Tensor,
        strength: float,
    ) -> None:
        kernel = lazy.new_tensor(problem.data.kernel)
        # As for the readout ntk, gradients are wanted at test points too.
        super().__init__(problem, weights, trajectory, reporter, "ntk", kernel)
        self._lazy = lazy
        self._strength = strength
        self.ntk: list[Tensor] = []

    @property
    def strength(self) -> float:
        return self._strength

    def predictions(self, fields: Fields, step: int) -> Tensor:
        self.ntk.append(fields.ntk(self._kernel))
        return self._lazy[step].expand(len(fields.output), -1, -1)


class BySampling:
    """Any network, by the solver of `dmft` at +-epsilon."""

    def __init__(self, problem: Problem, lazy: NDArray, reporter: Reporter, device: str) -> None:
        """`lazy` [T, A, C]: predictions of the lazy dynamics.

        Raises:
            Exhausted: too few samples for the directions visited.
        """
        method = problem.method
        assert isinstance(method, PerturbationMethod)
        f = torch.from_numpy(lazy).to(joint_kernel(problem, device))
        self._epsilon = EPSILON
        for _ in range(ATTEMPTS):
            mean = self._mean_ntk(problem, method, f, reporter, device)
            # At t = 0 nothing has moved: the sampled K_0.
            change = mean - mean[:1]
            moved = float(change.abs().max() / mean[0].abs().max())
            if moved == 0 or CHANGES[0] <= moved <= CHANGES[1]:
                break
            # What is small depends on the scales of kernel and targets; changes go as the square of epsilon.
            aim = math.sqrt(CHANGES[0] * CHANGES[1])
            self._epsilon *= math.sqrt(aim / moved) if math.isfinite(moved) else 0.1
            reporter.restart(f"again with epsilon = {self._epsilon:.1e}: kernels changed by {moved:.1e}")
        self._ntk = (change / self._epsilon**2).permute(0, 1, 3, 2, 5, 4).cpu().numpy()

    def _mean_ntk(
        self, problem: Problem, method: PerturbationMethod, f: Tensor, reporter: Reporter, device: str
    ) -> Tensor:
        """K(t, t) in the mean over both signs, [T, R, C, A, C, A]; keeps the factors of phi and g."""
        samples = method.samples // method.replicas
        ntks, self._factors = [], []
        for strength in (self._epsilon, -self._epsilon):
            trajectory = Trajectory.empty(problem, samples)
            weights = revealed_weights(
                problem, method.replicas, samples, TOLERANCE, method.seed, torch.float64, device, True
            )
            run = _LazyRun(problem, weights, trajectory, reporter, f, strength)
            descend(run)
            ntks.append(torch.stack(run.ntk))
            solution = trajectory.solution(problem)
            self._factors.append({"phi": solution.phi, "g": solution.g})
        self._steps = solution.kernel_steps
        return (ntks[0] + ntks[1]) / 2

    def ntk(self, step: int) -> NDArray:
        return self._ntk[step]

    def phi(self, layer: int, t: int, s: int) -> NDArray:
        return self._change("phi", layer, t, s)[:, :, 0, :, 0]

    def g(self, layer: int, t: int, s: int) -> NDArray:
        return self._change("g", layer, t, s)

    def _change(self, name: str, layer: int, t: int, s: int) -> NDArray:
        def between(first: int, second: int) -> NDArray:
            total = 0.0
            for factors in self._factors:
                factor = factors[name][layer - 1]
                left, right = factor[:, self._index(first)], factor[:, self._index(second)]
                total = total + np.einsum("rpck,rqdk->rpcqd", left, right) / len(self._factors)
            return np.asarray(total)

        return (between(t, s) - between(0, 0)) / self._epsilon**2

    def _index(self, step: int) -> int:
        return self._steps.index(step)
