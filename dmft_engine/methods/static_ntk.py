"""The lazy limit gamma0 -> 0: training with the kernel at initialisation (theory section 5)."""

from __future__ import annotations

import numpy as np
import torch

from dmft_engine.activations import ACTIVATIONS
from dmft_engine.fields import Scales
from dmft_engine.gaussian_kernels import InitialKernels, initial_kernels
from dmft_engine.gradient_descent import Reporter, check_convergent
from dmft_engine.initialisation import joint_kernel, kernel_factor
from dmft_engine.losses import LOSSES
from dmft_engine.problem import Problem
from dmft_engine.recipe import Recipe
from dmft_engine.solution import Solution


class StaticNtk:
    """Deterministic: kernels by closed form or quadrature, predictions by gradient descent on them."""

    def __init__(self, problem: Problem, device: str) -> None:
        self._problem = problem
        self._device = device
        self._kernels: InitialKernels | None = None
        self._predictions: list[torch.Tensor] = []

    @property
    def work(self) -> int:
        return self._problem.training.steps

    def run(self, reporter: Reporter) -> None:
        problem = self._problem
        self._kernels = initial_kernels(
            ACTIVATIONS[problem.network.activation],
            joint_kernel(problem, self._device),
            Scales.of(problem.network),
        )
        points = problem.data.points
        to_training = self._kernels.ntk[:, :points]
        targets = torch.tensor(problem.data.targets, device=self._device)
        loss = LOSSES[problem.training.loss]
        recipe = Recipe(problem.training, points)
        f = torch.zeros(to_training.shape[0], problem.data.outputs).to(to_training)
        velocity = torch.zeros_like(f)
        initial = 1.0
        for step in range(problem.training.steps):
            current = float(loss.reported(f[:points], targets))
            initial = current if step == 0 else initial
            check_convergent(current, initial, step, problem.training.learning_rate)
            self._predictions.append(f)
            reporter.step("training", current)
            # f(t+1) = f(t) + v,  v = mu v + (eta / P) K Delta(t): f is linear in the parameters.
            weighted = recipe.weighting(step, f)[:, None] * loss.errors(f[:points], targets)
            velocity = recipe.dynamics(step).momentum * velocity + to_training @ weighted
            f = f + velocity

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
            training = self._kernels.ntk[:points, :points].cpu().numpy()
            one_time = np.einsum("ab,cd->acbd", training, identity)
            ntk = np.broadcast_to(one_time, (len(steps), *one_time.shape))
        one = np.ones((1, 1))
        return Solution(
            predictions=torch.stack(self._predictions)[None].cpu().numpy(),
            kernel_steps=steps,
            phi=[constant_in_time(k, one) for k in self._kernels.phi[1:]] if "phi" in wanted else [],
            g=[constant_in_time(k, identity) for k in self._kernels.g[:-1]] if "g" in wanted else [],
            ntk=ntk,
        )
