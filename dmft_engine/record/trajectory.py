"""What a training run records, and how runs are merged into a Solution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmft_engine.model.activations import ACTIVATIONS, Activation
from dmft_engine.model.fields import Fields, Scales
from dmft_engine.model.networks import AnyWeights
from dmft_engine.populations.node import Layer
from dmft_engine.problem import Problem
from dmft_engine.record.field_record import FieldRecord
from dmft_engine.record.kernel_record import FactoredKernel, LateFactors, merged_factors
from dmft_engine.record.responses import ResponseRecord, equal_time_responses
from dmft_engine.record.solution import Solution, standard_error
from dmft_engine.state import Stateful
from dmft_engine.weights.matrices import RevealedMatrix
from dmft_engine.weights.sites import Layer as ComposedLayer
from dmft_engine.weights.weights import Weights
from dmft_schema.network import LayeredNetwork

NO_NTK = (
    "The ntk is left out: errors are carried back by fixed weights, so f does not move with the Gram matrix "
    "of its gradients. g is that of the fields which carry them."
)


@dataclass
class Trajectory(Stateful):
    """R replicas (or ensemble members) of one problem, step by step.

    Attributes:
        fields, responses: what was asked for of them.
        activation: phi, where responses are.
        predictions: f at each step, [R, A, C] each, test points last.
        kernel_steps: steps at which kernels were kept.
        phi, g: two-time kernels by layer, l = 1..L; empty if not asked for.
        ntk_sum, ntk_squares: sums over replicas at each kernel step, [P, C, P, C] each.
        dropped: at each step, for each hidden matrix, what its bases left out of phi and of g,
            relative to the longest fields (Subspace.dropped).
        basis_sizes: directions held at the last step.
        notes: for the diagnostics.
    """

    kept: ClassVar[tuple[str, ...]] = (
        "phi",
        "g",
        "fields",
        "responses",
        "predictions",
        "kernel_steps",
        "ntk_sum",
        "ntk_squares",
        "dropped",
        "basis_sizes",
        "notes",
    )

    phi: list[FactoredKernel]
    g: list[FactoredKernel]
    keep_ntk: bool
    points: int
    fields: FieldRecord
    responses: list[ResponseRecord]
    activation: Activation | None = None
    predictions: list[Tensor] = field(default_factory=list)
    kernel_steps: list[int] = field(default_factory=list)
    ntk_sum: list[Tensor] = field(default_factory=list)
    ntk_squares: list[Tensor] = field(default_factory=list)
    dropped: list[list[tuple[float, ...]]] = field(default_factory=list)
    basis_sizes: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def empty(cls, problem: Problem, samples: int, parts: int = 1) -> Trajectory:
        """A trajectory that will keep the kernels which the problem asks for; one of so many parts."""
        depth, wanted, points = problem.network.recorded, problem.outputs.kernels, problem.data.points
        each = problem.outputs.kernel_positions == "all"
        return cls(
            phi=[FactoredKernel(samples, each) for _ in range(depth)] if "phi" in wanted else [],
            g=[FactoredKernel(samples, each) for _ in range(depth)] if "g" in wanted else [],
            keep_ntk="ntk" in wanted and problem.training.backward_rule == "backpropagation",
            points=points,
            fields=FieldRecord(problem.field_steps, problem.outputs.field_neurons, points, merged=parts > 1),
            **_responses(problem),
        )

    def record_step(self, f: Tensor, weights: AnyWeights) -> None:
        """Keep what is kept at every step."""
        self.predictions.append(f)
        self.dropped.append(weights.dropped)
        layers: Sequence[Layer | ComposedLayer] = weights.layers
        self.basis_sizes = {
            f"{name}_{index}": node.space.size
            for index, layer in enumerate(layers, start=1)
            for name, node in (("phi", layer.phi), ("g", layer.g))
        }

    def forget_step(self) -> None:
        """Take back `record_step`: what belongs to it could not be kept."""
        self.predictions.pop()
        self.dropped.pop()

    def record_responses(self, fields: Fields, weights: AnyWeights) -> None:
        """Keep what responses are read off, if they are asked for; at every step."""
        if not self.responses:
            return
        assert isinstance(weights, Weights)
        assert self.activation is not None
        equal_time = equal_time_responses(self.activation, fields)
        for record, matrix, own in zip(self.responses, weights.hidden, equal_time, strict=True):
            assert isinstance(matrix, RevealedMatrix)
            record.record(matrix, own)

    def record_kernels(self, step: int, fields: Fields, weights: AnyWeights, input_kernel: Tensor) -> None:
        """Keep what is kept at kernel times only."""
        if self.phi or self.g:
            weights.complete_coordinates(fields)
        self.kernel_steps.append(step)
        for name, kernels in (("phi", self.phi), ("g", self.g)):
            if kernels:
                for kernel, blocks in zip(kernels, weights.coordinates(name), strict=True):
                    kernel.record([block[:, : self.points] for block in blocks])
        if self.keep_ntk:
            ntk = fields.ntk(input_kernel)[:, :, : self.points, :, : self.points]
            self.ntk_sum.append(ntk.sum(0).permute(1, 0, 3, 2))
            self.ntk_squares.append(ntk.square().sum(0).permute(1, 0, 3, 2))

    def solution(self, problem: Problem) -> Solution:
        """What was recorded."""
        return self.merge([self], problem)

    def _response_arrays(self, problem: Problem, layer: int, check: Callable[[], None]) -> dict[str, NDArray]:
        """a_{l} [K, P, K, P (, C)] and b_{l} [K, P (, C), K, P], with standard errors."""
        arrays: dict[str, NDArray] = {}
        outputs, steps = problem.data.outputs, self.kernel_steps
        for record in self.responses[layer - 1 : layer]:
            a = record.a(steps, check).unflatten(4, (outputs, -1)).transpose(4, 5).cpu().numpy()
            b = record.b(steps, check).unflatten(2, (outputs, -1)).transpose(2, 3).cpu().numpy()
            members = {"a": a[..., 0] if outputs == 1 else a, "b": b[:, :, :, 0] if outputs == 1 else b}
            for name, values in members.items():
                arrays[f"{name}_{layer}"] = values.mean(0)
                error = standard_error(values)
                if error is not None:
                    arrays[f"{name}_{layer}_standard_error"] = error
        return arrays

    @staticmethod
    def merge(runs: list[Trajectory], problem: Problem) -> Solution:
        """Runs of the same length as one set of members; of their kernels, what makes the factors."""
        predictions = np.concatenate([torch.stack(run.predictions, dim=1).cpu().numpy() for run in runs])
        ntk = ntk_error = None
        if runs[0].ntk_sum:
            ntk, ntk_error = _mean_and_error(runs, predictions.shape[0])
        return Solution(
            predictions=predictions,
            kernel_steps=list(runs[0].kernel_steps),
            phi=_merged([run.phi for run in runs]),
            g=_merged([run.g for run in runs]),
            ntk=ntk,
            ntk_standard_error=ntk_error,
            arrays=FieldRecord.arrays([run.fields for run in runs], problem.data.scalar_output),
            later={
                f"a_{layer}, b_{layer}": partial(runs[0]._response_arrays, problem, layer)
                for layer in range(1, len(runs[0].responses) + 1)
            },
            notes=[*dict.fromkeys(note for run in runs for note in run.notes)]
            + ([NO_NTK] if ntk is None and "ntk" in problem.outputs.kernels else []),
        )


def _responses(problem: Problem) -> dict[str, Any]:
    """Records of the responses, if they are asked for, and what they need."""
    network = problem.network
    if not problem.outputs.responses or not isinstance(network, LayeredNetwork):
        return {"responses": []}
    sigmas = Scales.of(network).weights[1:-1]
    return {
        "responses": [ResponseRecord(sigma, problem.data.points) for sigma in sigmas],
        "activation": ACTIVATIONS[network.activation],
    }


def _merged(kernels: list[list[FactoredKernel]]) -> list[LateFactors]:
    """By layer, the runs' members one after another; of runs that kept the same times."""
    return [merged_factors(layer) for layer in zip(*kernels, strict=True) if all(k.members for k in layer)]


def _mean_and_error(runs: list[Trajectory], members: int) -> tuple[NDArray, NDArray | None]:
    def total(name: str) -> NDArray:
        stacked = [torch.stack(getattr(run, name)).double() for run in runs]
        return torch.stack(stacked).sum(0).cpu().numpy()

    dtype = str(runs[0].ntk_sum[0].dtype).removeprefix("torch.")
    mean = total("ntk_sum") / members
    if members == 1:
        return mean.astype(dtype), None
    variance = (total("ntk_squares") / members - mean**2).clip(min=0) * members / (members - 1)
    return mean.astype(dtype), np.sqrt(variance / members).astype(dtype)
