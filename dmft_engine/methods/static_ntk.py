"""The lazy limit gamma0 -> 0: training with the kernel at initialisation (theory section 5)."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import LSODA

from dmft_engine.factorisation import kernel_factor
from dmft_engine.methods.method import Method, StartOver
from dmft_engine.model.recipe import Recipe
from dmft_engine.problem import Problem
from dmft_engine.record.kernel_record import LateFactors
from dmft_engine.record.solution import Arrays, Solution
from dmft_engine.state import State
from dmft_engine.theory.gaussian_kernels import InitialKernels, Inputs, kernels_with_error
from dmft_engine.training.reporter import Reporter
from dmft_engine.training.rollout import Rollout
from dmft_engine.weights.initialisation import joint_kernel
from dmft_schema.closing import is_sampled

SAMPLED = (
    "attention has no kernels in closed form: they are means over sampled heads, and "
    "kernel_error is three of their standard errors"
)


class StaticNtk(Method):
    """Deterministic: kernels by the recursions of blocks, predictions by gradient descent on them.

    In float64; kernels are written in the dtype asked for.

    Attributes:
        kernel_error: estimate for the kernels, relative to sqrt(K_aa K_bb), once it has run.
    """

    def __init__(self, problem: Problem, device: str) -> None:
        self._problem = problem
        self._device = device
        self._recipe = Recipe(problem.training, problem.data.points)
        self._times = self._recipe.times
        self._kernels: InitialKernels | None = None
        self._rollout = Rollout(problem, torch.empty(0, dtype=torch.float64, device=device))
        self._velocity: torch.Tensor | None = None
        self._solver: LSODA | None = None
        self._predictions: list[torch.Tensor] = []
        self.kernel_error: float | None = None

    @property
    def work(self) -> int:
        return self._problem.training.steps

    @property
    def done(self) -> bool:
        return len(self._predictions) == self._problem.training.steps

    def advance(self, reporter: Reporter) -> None:
        problem, step = self._problem, len(self._predictions)
        if self._kernels is None:
            self._begin(reporter)
            for note in self.notes:
                reporter.remark(note)
        flows = problem.training.dynamics == "gradient_flow"
        f = self._flown(step) if flows else self._descended(step)
        loss = self._rollout.checked_loss(f, step)
        self._predictions.append(f)
        reporter.step("training", loss)

    def _begin(self, reporter: Reporter) -> None:
        """Kernels at initialisation, and what they say of the learning rate."""
        blocks = self._problem.network.blocks
        self._kernels, self.kernel_error = kernels_with_error(blocks, self._inputs(), reporter.check)
        self._rollout.judge_rate(self._kernels.ntk)

    def _inputs(self) -> Inputs:
        data = self._problem.data
        if not data.shape.positions:
            return Inputs(joint_kernel(self._problem, self._device))
        return Inputs.of_vectors(torch.tensor(data.inputs, dtype=torch.float64, device=self._device))

    def state(self) -> State:
        return {
            "predictions": [f.clone() for f in self._predictions],
            "velocity": None if self._velocity is None else self._velocity.clone(),
            "rollout": self._rollout.state(),
        }

    def restore(self, state: State, reporter: Reporter, longer: bool) -> None:
        if longer and self._problem.training.dynamics == "gradient_flow":
            raise StartOver("the integrator chooses its steps by the time at which it ends")
        if not state["predictions"]:
            return
        self._begin(reporter)
        self._predictions, self._velocity = list(state["predictions"]), state["velocity"]
        self._rollout.restore(state["rollout"])

    @property
    def _to_training(self) -> torch.Tensor:
        """The NTK between all points and training points, [A, P]."""
        assert self._kernels is not None
        return self._kernels.ntk[:, : self._problem.data.points]

    @property
    def notes(self) -> list[str]:
        """For the diagnostics."""
        sampled = self._kernels is not None and is_sampled(self._problem.network.blocks)
        return [*self._rollout.notes, *([SAMPLED] if sampled else [])]

    def _start(self) -> torch.Tensor:
        return self._to_training.new_zeros(len(self._to_training), self._problem.data.outputs)

    def _descended(self, step: int) -> torch.Tensor:
        """f after so many steps of gradient descent."""
        if step == 0:
            return self._start()
        f = self._predictions[-1]
        velocity = torch.zeros_like(f) if self._velocity is None else self._velocity
        # f(t+1) = f(t) + v,  v = mu v + (eta / P) K Delta(t): f is linear in the parameters.
        weighted = self._recipe.weighting(step - 1, f)[:, None] * self._rollout.errors(f)
        self._velocity = self._problem.training.momentum * velocity + self._to_training @ weighted
        return f + self._velocity

    def _flown(self, step: int) -> torch.Tensor:
        """f at a time of the flow, df / d tau = (1 / P) K Delta.

        The integrator's steps do not hang on the times asked for: one that is made anew, because the state
        of the old was lost, takes the same again.
        """
        start, time = self._start(), self._times[step]
        if step == 0:
            return start
        if self._solver is None:
            self._solver = self._integrator(start)
        while self._solver.t < time:
            self._solver.step()
        return torch.from_numpy(self._solver.dense_output()(time)).to(start).view_as(start)

    def _integrator(self, start: torch.Tensor) -> LSODA:
        training, to_training = self._problem.training, self._to_training

        def slope(_: float, flat: NDArray) -> NDArray:
            f = torch.from_numpy(flat).to(start).view_as(start)
            change = to_training @ self._rollout.errors(f) / self._problem.data.points
            return change.flatten().cpu().numpy()

        return LSODA(
            slope,
            0.0,
            start.flatten().cpu().numpy(),
            max(float(self._times[-1]), training.learning_rate),
            rtol=training.flow_tolerance,
            atol=training.flow_tolerance,
        )

    @property
    def predictions(self) -> NDArray:
        """[T, A, C]."""
        return torch.stack(self._predictions).cpu().numpy()

    @property
    def ntk(self) -> NDArray:
        """[A, C, A, C], once it has run."""
        assert self._kernels is not None
        identity = np.eye(self._problem.data.outputs)
        return np.einsum("ab,cd->acbd", self._kernels.ntk.cpu().numpy(), identity)

    @property
    def kernels(self) -> list[tuple[NDArray, NDArray]]:
        """(Phi^l, G^l), each [A, A], for l = 1..L, once it has run."""
        assert self._kernels is not None
        pairs = zip(self._kernels.phi, self._kernels.g, strict=True)
        return [(phi.cpu().numpy(), g.cpu().numpy()) for phi, g in pairs]

    def solution(self) -> Solution | None:
        if self._kernels is None or not self._predictions:
            return None
        problem = self._problem
        reached = len(self._predictions)
        steps = [int(step) for step in problem.kernel_steps if step < reached]
        points, outputs = problem.data.points, problem.data.outputs
        identity = np.eye(outputs)

        def constant_in_time(kernel: torch.Tensor, channels: np.ndarray) -> np.ndarray:
            factor = kernel_factor(kernel).cpu().numpy()
            # <g_c g_c'> = delta_cc' G: one block of coordinates for each output.
            block = np.einsum("ak,cd->acdk", factor, channels).reshape(len(factor), len(channels), -1)
            return np.broadcast_to(block, (1, len(steps), *block.shape))

        wanted = problem.outputs.kernels
        ntk = None
        if "ntk" in wanted:
            one_time = self.ntk[:points, :, :points]
            ntk = np.broadcast_to(one_time, (len(steps), *one_time.shape))
        one = np.ones((1, 1))
        arrays: Arrays = {}
        if "ntk" in wanted:
            for name, layers in (("nngp", self._kernels.nngp), ("ntk", self._kernels.ntk_by_layer)):
                arrays |= {
                    f"{name}_{layer}": k.cpu().numpy().astype(problem.method.dtype)
                    for layer, k in enumerate(layers, start=1)
                }
        return Solution(
            predictions=torch.stack(self._predictions)[None].cpu().numpy(),
            kernel_steps=steps,
            phi=[LateFactors(partial(constant_in_time, k, one)) for k in self._kernels.phi]
            if "phi" in wanted
            else [],
            g=[LateFactors(partial(constant_in_time, k, identity)) for k in self._kernels.g]
            if "g" in wanted
            else [],
            ntk=ntk,
            kernel_error=self.kernel_error,
            arrays=arrays,
            notes=self.notes,
        )


class LazyLimit(StaticNtk):
    """What the other methods of the limit become at gamma0 = 0."""

    def solution(self) -> Solution | None:
        solution = super().solution()
        if solution is not None:
            solution.notes.append("gamma0 = 0 is the lazy limit: solved by static_ntk.")
        return solution
