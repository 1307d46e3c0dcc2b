"""Deep linear networks by their algebraic equations: exact, no sampling (theory section 4)."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from dmft_engine.factorisation import pivoted_factor
from dmft_engine.methods.method import Method
from dmft_engine.model.recipe import Recipe
from dmft_engine.problem import Problem
from dmft_engine.record.kernel_record import LateFactors
from dmft_engine.record.solution import Arrays, Solution
from dmft_engine.state import State
from dmft_engine.theory.algebraic import GrowingKernel, LinearTheory
from dmft_engine.training.reporter import Reporter
from dmft_engine.training.rollout import Rollout, advanced
from dmft_engine.weights.initialisation import joint_kernel
from dmft_schema import GradientIndependenceMethod, LinearMethod

FACTOR_ERROR = 1e-13
"""Largest error of a kernel entry written in factored form, relative to the largest entry."""


class Linear(Method):
    """Deterministic, in float64."""

    def __init__(self, problem: Problem, device: str, responses: bool = True) -> None:
        """`responses` False leaves out A and B: gradient independence."""
        if not isinstance(problem.method, LinearMethod | GradientIndependenceMethod):
            raise TypeError(f"Linear cannot take the options of {problem.method.name}")
        self._problem = problem
        self._responses = responses
        self._readout = problem.method.readout
        self._recipe = Recipe(problem.training, problem.data.points)
        kept = problem.kernel_steps.tolist() if "ntk" in problem.outputs.kernels else []
        self._ntk_steps = set(kept)
        self._kernel = joint_kernel(problem, device)
        self._rollout = Rollout(problem, self._kernel)
        self._f = torch.zeros(len(self._kernel), problem.data.outputs).to(self._kernel)
        self._theory: LinearTheory | None = None
        self._predictions: list[torch.Tensor] = []
        self._ntk: list[torch.Tensor] = []

    @property
    def work(self) -> int:
        return self._problem.training.steps

    @property
    def done(self) -> bool:
        return len(self._predictions) == self._problem.training.steps

    def advance(self, reporter: Reporter) -> None:
        problem, step = self._problem, len(self._predictions)
        points, gamma0 = problem.data.points, problem.network.gamma0
        if self._theory is None:
            self._theory = self._new_theory()
        theory = self._theory
        correlation = theory.step()
        if self._readout == "exact":
            # f = <w phi(h^L)> / gamma0
            self._f = correlation / gamma0
        f = self._f
        if step == 0:
            self._rollout.judge_rate(theory.ntk().permute(1, 0, 3, 2))
            self._rollout.warn(reporter)
        loss = self._rollout.checked_loss(f, step)
        if step in self._ntk_steps:
            self._ntk.append(theory.ntk()[:points, :, :points])
        pull = self._rollout.pull(f, self._recipe.weighting(step, f))
        if self._readout == "ntk":
            self._f = advanced(f[None], theory.ntk()[None], pull[None])[0]
        theory.advance(gamma0 * pull)
        self._predictions.append(f)
        reporter.step("training", loss)

    def _new_theory(self) -> LinearTheory:
        problem = self._problem
        return LinearTheory(
            self._kernel,
            problem.network.recorded,
            problem.training.steps,
            problem.data.outputs,
            self._responses,
        )

    def state(self) -> State:
        return {
            "theory": self._theory.state() if self._theory else None,
            "f": self._f.clone(),
            "predictions": [f.clone() for f in self._predictions],
            "ntk": [ntk.clone() for ntk in self._ntk],
            "rollout": self._rollout.state(),
        }

    def restore(self, state: State, reporter: Reporter, longer: bool) -> None:
        if state["theory"] is not None:
            self._theory = self._new_theory()
            self._theory.restore(state["theory"])
        self._f = state["f"].clone()
        self._predictions, self._ntk = list(state["predictions"]), list(state["ntk"])
        self._rollout.restore(state["rollout"])

    def solution(self) -> Solution | None:
        if self._theory is None or not self._predictions:
            return None
        problem, layers = self._problem, self._theory.layers
        reached = len(self._predictions)
        steps = np.array([step for step in problem.kernel_steps if step < reached])
        points, wanted = problem.data.points, problem.outputs.kernels

        def phi(kernel: GrowingKernel) -> NDArray:
            factor = _factor(kernel.all.cpu().numpy(), len(self._predictions[0]), steps)
            return factor[None, :, :points, None]

        def g(kernel: GrowingKernel) -> NDArray:
            factor = _factor(kernel.all.cpu().numpy(), problem.data.outputs, steps)[None, :, None]
            return np.broadcast_to(factor, (1, len(steps), points, *factor.shape[3:]))

        return Solution(
            predictions=torch.stack(self._predictions)[None].cpu().numpy(),
            kernel_steps=steps.tolist(),
            phi=[LateFactors(partial(phi, layer.h)) for layer in layers] if "phi" in wanted else [],
            g=[LateFactors(partial(g, layer.g)) for layer in layers] if "g" in wanted else [],
            ntk=torch.stack(self._ntk).cpu().numpy() if self._ntk else None,
            arrays=self._responses_at(steps) if problem.outputs.responses else {},
            notes=self._rollout.notes,
        )

    def _responses_at(self, steps: NDArray) -> Arrays:
        """a_{l} [K, P, K (, C)] and b_{l} [K (, C), K, P] for l = 1..L-1.

        The field that is varied is the same for all points, so its axis has no data index.
        """
        assert self._theory is not None
        problem, layers = self._problem, self._theory.layers
        points, outputs = problem.data.points, problem.data.outputs
        by_point, by_output = (-1, len(self._predictions[0])), (-1, outputs)
        arrays: Arrays = {}
        for layer, (below, above) in enumerate(itertools.pairwise(layers), start=1):
            a = below.a.unflatten(1, by_output).unflatten(0, by_point).cpu().numpy()
            b = above.b.unflatten(1, by_point).unflatten(0, by_output).cpu().numpy()
            a, b = a[steps][:, :points, steps], b[steps][:, :, steps, :points]
            arrays[f"a_{layer}"] = a if outputs > 1 else a[..., 0]
            arrays[f"b_{layer}"] = b if outputs > 1 else b[:, 0]
        return arrays


def _factor(kernel: NDArray, size: int, steps: NDArray) -> NDArray:
    """[K, size, k] of a kernel [T size, T size] at the given steps."""
    rows = (steps[:, None] * size + np.arange(size)).ravel()
    return pivoted_factor(kernel[np.ix_(rows, rows)], FACTOR_ERROR).reshape(len(steps), size, -1)
