"""Second-order change K_1 of the kernels along the lazy dynamics: K = K_0 + gamma0^2 K_1 (theory section 5).

Of deep linear networks in closed form; of all others from two runs of the solver of `dmft` at +-epsilon,
whose errors are those of the lazy dynamics. In the mean over both signs odd orders cancel, and with them
the noise of first order, since both runs draw the same random vector for the same direction up to its sign
(subspace.py); what is left beside K_1 is of order epsilon^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmft_engine.model.fields import Fields
from dmft_engine.model.losses import reported_and_errors
from dmft_engine.model.recipe import Recipe
from dmft_engine.problem import Problem
from dmft_engine.record.trajectory import Trajectory
from dmft_engine.state import State, Stateful
from dmft_engine.training.gradient_descent import Descent
from dmft_engine.training.reporter import Reporter
from dmft_engine.training.trainer import Trainer
from dmft_engine.training.training_run import TrainingRun
from dmft_engine.weights.initialisation import joint_kernel, revealed_weights
from dmft_engine.weights.weights import Weights
from dmft_schema import PerturbationMethod

EPSILON = 0.01
"""Strength to begin with."""

CHANGES = (1e-6, 1e-3)
"""Of the NTK in a run, relative: less is near what the bases leave out, more is no longer second order."""

ATTEMPTS = 6
SIGNS = (1, -1)
TOLERANCE = 1e-5
"""Of the bases: far below epsilon. (At 1e-7 K_1 is the same to 1e-5, for fifty times the time.)"""


class SecondOrder(Protocol):
    """K_1 of R members (1 if exact), for A points of which P train, and C outputs."""

    @property
    def done(self) -> bool:
        """Whether it is known."""

    def advance(self, reporter: Reporter) -> None:
        """Go on towards it, one step of training at most; see Method.advance."""

    def state(self) -> State:
        """See Method.state."""

    def restore(self, state: State, reporter: Reporter) -> None:
        """See Method.restore."""

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
        self._depth = problem.network.recorded
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

    @property
    def done(self) -> bool:
        return True

    def advance(self, reporter: Reporter) -> None:
        raise AssertionError("it is known from the beginning")

    def state(self) -> State:
        return {}

    def restore(self, state: State, reporter: Reporter) -> None:
        pass

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

    kept: ClassVar[tuple[str, ...]] = (*TrainingRun.kept, "ntk")

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


@dataclass
class _Record(Stateful):
    """What is kept of a run at one sign of epsilon."""

    kept: ClassVar[tuple[str, ...]] = ("trajectory", "ntk")

    trajectory: Trajectory
    ntk: list[Tensor]


class BySampling:
    """Any network, by the solver of `dmft` at +-epsilon."""

    def __init__(self, problem: Problem, lazy: NDArray, device: str) -> None:
        """`lazy` [T, A, C]: predictions of the lazy dynamics."""
        assert isinstance(problem.method, PerturbationMethod)
        self._problem = problem
        self._method = problem.method
        self._device = device
        self._lazy = torch.from_numpy(lazy).to(joint_kernel(problem, device))
        self._epsilon = EPSILON
        self._attempts = 1
        self._records: list[_Record] = []
        """Of the runs that have ended."""
        self._trainer: Trainer | None = None
        self._ntk: NDArray | None = None
        self._factors: list[dict[str, list[NDArray]]] = []

    @property
    def done(self) -> bool:
        return self._ntk is not None

    def advance(self, reporter: Reporter) -> None:
        """See SecondOrder.

        Raises:
            Exhausted: too few samples for the directions visited.
        """
        if self._trainer is not None and self._trainer.done:
            self._finish_run()
        if len(self._records) == len(SIGNS):
            return self._conclude(reporter)
        if self._trainer is None:
            self._trainer = self._begin(reporter)
        self._trainer.advance()

    def _begin(self, reporter: Reporter) -> Trainer:
        """Weights at t = 0 for the next sign of epsilon."""
        method = self._method
        samples = method.samples // method.replicas
        weights = revealed_weights(
            self._problem,
            method.replicas,
            samples,
            TOLERANCE,
            method.seed,
            torch.float64,
            self._device,
            True,
        )
        trajectory = Trajectory.empty(self._problem, samples)
        strength = SIGNS[len(self._records)] * self._epsilon
        assert isinstance(weights, Weights)
        return Descent(_LazyRun(self._problem, weights, trajectory, reporter, self._lazy, strength))

    def _finish_run(self) -> None:
        """Keep the record of a run that has ended, and nothing else."""
        assert self._trainer is not None
        run = self._trainer.run
        assert isinstance(run, _LazyRun)
        self._records.append(_Record(run.trajectory, run.ntk))
        self._trainer = None

    def _conclude(self, reporter: Reporter) -> None:
        """Take the two runs as they are, or begin two others with a better epsilon."""
        one, other = (torch.stack(record.ntk) for record in self._records)
        mean = (one + other) / 2  # [T, R, C, A, C, A]
        # At t = 0 nothing has moved: the sampled K_0.
        change = mean - mean[:1]
        moved = float(change.abs().max() / mean[0].abs().max())
        if moved == 0 or CHANGES[0] <= moved <= CHANGES[1] or self._attempts == ATTEMPTS:
            self._take(change)
            return
        # What is small depends on the scales of kernel and targets; changes go as the square of epsilon.
        aim = math.sqrt(CHANGES[0] * CHANGES[1])
        self._epsilon *= math.sqrt(aim / moved) if math.isfinite(moved) else 0.1
        self._attempts += 1
        self._records.clear()
        reporter.restart(f"again with epsilon = {self._epsilon:.1e}: kernels changed by {moved:.1e}")

    def _take(self, change: Tensor) -> None:
        """By how much the NTK has changed in the mean over both signs, [T, R, C, A, C, A]."""
        self._ntk = (change / self._epsilon**2).permute(0, 1, 3, 2, 5, 4).cpu().numpy()
        trajectories = [record.trajectory for record in self._records]
        self._factors = [
            {
                name: [kernel.factors().cpu().numpy() for kernel in getattr(trajectory, name)]
                for name in ("phi", "g")
            }
            for trajectory in trajectories
        ]
        self._steps = trajectories[0].kernel_steps

    def state(self) -> State:
        return {
            "epsilon": self._epsilon,
            "attempts": self._attempts,
            "records": [record.state() for record in self._records],
            "trainer": self._trainer.state() if self._trainer else None,
            "done": self.done,
        }

    def restore(self, state: State, reporter: Reporter) -> None:
        self._epsilon, self._attempts = state["epsilon"], state["attempts"]
        samples = self._method.samples // self._method.replicas
        for kept in state["records"]:
            self._records.append(_Record(Trajectory.empty(self._problem, samples), []))
            self._records[-1].restore(kept)
        if state["trainer"] is not None:
            self._trainer = self._begin(reporter)
            self._trainer.restore(state["trainer"])
        if state["done"]:
            self._conclude(reporter)

    def ntk(self, step: int) -> NDArray:
        assert self._ntk is not None, "not known yet"
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
