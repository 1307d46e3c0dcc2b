"""The paper's Algorithm 1: alternating Monte Carlo (theory section 3).

Sample single-neuron fields from the current kernels, solve their equations forward in time, re-estimate
kernels and responses, damp, repeat until the kernels stop moving. What it shares with `dmft`
beyond the model stands in docs/theory.md section 3: the sum that the NTK is, and the step it moves f by.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from dmft_engine.devices import check_room
from dmft_engine.factorisation import JITTER_OVER_ROUNDING
from dmft_engine.methods.method import Method, StartOver
from dmft_engine.methods.precision import name_of
from dmft_engine.problem import Problem
from dmft_engine.record.solution import Arrays, Solution, standard_error
from dmft_engine.state import State
from dmft_engine.theory.alternation import Draws, Iteration
from dmft_engine.training.reporter import Reporter
from dmft_engine.training.rounding import Imprecise, check_scale, in_float64
from dmft_engine.weights.initialisation import joint_kernel
from dmft_schema import AlternatingMethod
from dmft_schema.memory import Demand


class Alternating(Method):
    """Solves the limit by a fixed-point iteration; errors by replicas, each iterated on its own."""

    def __init__(self, problem: Problem, device: str) -> None:
        if not isinstance(problem.method, AlternatingMethod):
            raise TypeError("Alternating needs an AlternatingMethod")
        self._problem = problem
        self._method = problem.method
        self._device = device
        self._dtype = getattr(torch, problem.method.dtype)
        self._notes: list[str] = []
        self._iteration: Iteration | None = None
        self._kernel_changes: list[float] = []
        self._loss_changes: list[float] = []
        self._converged = False

    @property
    def work(self) -> int:
        return self._method.max_iterations

    @property
    def done(self) -> bool:
        return self._converged or len(self._kernel_changes) == self._method.max_iterations

    def advance(self, reporter: Reporter) -> None:
        method = self._method
        if self._iteration is None:
            self._begin(reporter)
        iteration = self._iteration
        assert iteration is not None
        before = iteration.loss()
        moved = iteration.advance(method.damping)
        loss = iteration.loss()
        self._kernel_changes.append(moved)
        self._loss_changes.append(float(np.abs(loss - before).max() / loss[0]))
        self._converged = moved < method.tolerance
        done = len(self._kernel_changes)
        reporter.step(
            f"iteration {done}: kernels moved by {moved:.2g}, the loss by {self._loss_changes[-1]:.2g}",
            float(loss[-1]),
        )
        if self._converged:
            reporter.finish(f"converged in {done} iterations")

    def _begin(self, reporter: Reporter) -> None:
        try:
            check_scale(joint_kernel(self._problem, self._device), self._dtype)
        except Imprecise as imprecise:
            self._dtype = torch.float64
            self._notes.append(in_float64(imprecise))
            demand = replace(Demand.of(self._problem, self._problem.data.sizes), itemsize=8)
            check_room(demand, self._device)
        self._iteration = self._new_iteration()
        self._iteration.rollout.warn(reporter)

    def _new_iteration(self) -> Iteration:
        method = self._method
        draws = Draws(method.replicas, method.samples // method.replicas, method.seed)
        return Iteration(self._problem, self._device, self._dtype, draws)

    def state(self) -> State:
        return {
            "dtype": name_of(self._dtype),
            "notes": list(self._notes),
            "kernel_changes": list(self._kernel_changes),
            "loss_changes": list(self._loss_changes),
            "converged": self._converged,
            "iteration": self._iteration.state() if self._iteration else None,
        }

    def restore(self, state: State, reporter: Reporter, longer: bool) -> None:
        if longer:
            raise StartOver("each iteration is one of all times")
        self._dtype, self._notes = getattr(torch, state["dtype"]), list(state["notes"])
        self._kernel_changes = list(state["kernel_changes"])
        self._loss_changes = list(state["loss_changes"])
        self._converged = state["converged"]
        if state["iteration"] is not None:
            self._iteration = self._new_iteration()
            self._iteration.restore(state["iteration"])

    def solution(self) -> Solution | None:
        if self._iteration is None:
            return None
        problem = self._problem
        ntk = ntk_error = None
        steps, points = problem.kernel_steps, problem.data.points
        if "ntk" in problem.outputs.kernels:
            members = self._iteration.ntk()[:, steps, :points, :, :points].cpu().numpy()
            ntk, ntk_error = members.mean(0), standard_error(members)
        return Solution(
            predictions=self._iteration.predictions.cpu().numpy(),
            kernel_steps=steps.tolist(),
            phi=[],
            g=[],
            ntk=ntk,
            ntk_standard_error=ntk_error,
            samples=self._method.samples,
            replicas=self._method.replicas,
            seed=self._method.seed,
            converged=self._converged,
            rounding=self._rounding(),
            computed_in=name_of(self._dtype),
            notes=[
                *self._notes,
                *self._iteration.rollout.notes,
                *([] if self._converged else [self._not_converged()]),
            ],
            arrays=self._two_time_arrays(self._iteration)
            | {
                "iteration_kernel_change": np.array(self._kernel_changes),
                "iteration_loss_change": np.array(self._loss_changes),
            },
        )

    def _rounding(self) -> np.ndarray:
        """[T], of f: the kernels that roll it out are factored with a jitter of JITTER_OVER_ROUNDING."""
        assert self._iteration is not None
        f = self._iteration.predictions.double()
        changes = f.diff(dim=1).abs().amax((0, 2, 3)).cumsum(0).cpu().numpy()
        relative = 2 * JITTER_OVER_ROUNDING * torch.finfo(self._dtype).eps
        return relative * np.concatenate([[0.0], changes])

    def _two_time_arrays(self, iteration: Iteration) -> Arrays:
        """phi and g, and the responses if asked for, between the kernel times."""
        outputs, depth = self._problem.outputs, self._problem.network.recorded
        arrays: Arrays = {}
        for layer, kernels in enumerate(iteration.layers, start=1):
            names: list[str] = [name for name in ("phi", "g") if name in outputs.kernels]
            if outputs.responses:
                # Named as in theory section 1: this layer holds A^l and B^{l-1}.
                names += (["a"] if layer < depth else []) + (["b"] if layer > 1 else [])
            for name in names:
                members = self._kept(name, getattr(kernels, name)).cpu().numpy()
                key = f"{name}_{layer - 1 if name == 'b' else layer}"
                arrays[key] = members.mean(0)
                if name in ("phi", "g"):
                    same = np.arange(members.shape[1])
                    between = np.moveaxis(members, members.ndim // 2 + 1, 2)
                    error = standard_error(between[:, same, same])
                else:
                    error = standard_error(members)
                if error is not None:
                    arrays[f"{key}_standard_error"] = error
        return arrays

    def _kept(self, name: str, kernel: Tensor) -> Tensor:
        """[R, K, P (, C), K, P (, C)]: the kernel times and training points of a flat kernel."""
        data, steps = self._problem.data, torch.from_numpy(self._problem.kernel_steps)
        total = (self._problem.training.steps, -1, len(data.kernel))
        blocks = kernel.unflatten(2, total).unflatten(1, total)  # [R, T, C or 1, A, T, C or 1, A]
        blocks = blocks[:, steps][:, :, :, :, steps][:, :, :, : data.points][..., : data.points]
        ordered = blocks.transpose(2, 3).transpose(5, 6)
        # Kernels of one output, and phi, have no axis for it (dmft_schema/kernels.py).
        with_outputs = {"phi": (False, False), "g": (True, True), "a": (False, True), "b": (True, False)}
        left, right = with_outputs[name]
        if not (right and data.outputs > 1):
            ordered = ordered.squeeze(6)
        return ordered if left and data.outputs > 1 else ordered.squeeze(3)

    def _not_converged(self) -> str:
        done = len(self._kernel_changes)
        moving = f", kernels still moving by {self._kernel_changes[-1]:.2g}" if done else ""
        return (
            f"not converged: stopped after {done} iterations{moving} (method.tolerance: "
            f"{self._method.tolerance:g}); raise method.max_iterations, or method.damping if the changes grow"
        )
