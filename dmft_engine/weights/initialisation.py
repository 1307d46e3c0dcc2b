"""Weights at t = 0: an infinite-width network, or dense ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dmft_engine.factorisation import kernel_factor
from dmft_engine.model.composition import Composition
from dmft_engine.model.fields import Scales
from dmft_engine.model.networks import ARCHITECTURES, AnyWeights
from dmft_engine.populations.node import Layer, Node
from dmft_engine.populations.population import Population
from dmft_engine.populations.sampling import seed_of
from dmft_engine.problem import Problem
from dmft_engine.weights.builder import DENSE_RECORD_TOLERANCE, LimitBuilder, NetworkBuilder
from dmft_engine.weights.matrices import (
    DenseFixedFeedback,
    DenseMatrix,
    DenseNoFeedback,
    HiddenMatrix,
    RevealedFixedFeedback,
    RevealedMatrix,
    RevealedNoFeedback,
)
from dmft_engine.weights.weights import Bias, Feedback, InputMatrix, Readout, RevealedReadout, Weights
from dmft_schema.network import LayeredNetwork


def joint_kernel(problem: Problem, device: str) -> Tensor:
    """K^x of all points in float64, [A, A]."""
    return torch.as_tensor(problem.data.kernel, dtype=torch.float64, device=device)


@dataclass(frozen=True)
class BackwardRule:
    """What carries errors back. One entry in BACKWARD_RULES adds one.

    Attributes:
        revealed: (source, target, responses) -> a hidden matrix of the infinite-width limit.
        dense: (source, target, draws standard normals [R, N, N]) -> one of a finite network.
        direct: depth -> the layers (l - 1) that fixed vectors carry errors to.
    """

    revealed: Callable[[Node, Node, bool], HiddenMatrix]
    dense: Callable[[Node, Node, Callable[[], Tensor]], HiddenMatrix]
    direct: Callable[[int], range]


BACKWARD_RULES: dict[str, BackwardRule] = {
    "backpropagation": BackwardRule(
        RevealedMatrix,
        lambda source, target, draw: DenseMatrix(source, target, draw()),
        direct=lambda depth: range(0),
    ),
    "feedback_alignment": BackwardRule(
        lambda source, target, _: RevealedFixedFeedback(source, target),
        lambda source, target, draw: DenseFixedFeedback(source, target, draw(), draw()),
        direct=lambda depth: range(depth - 1, depth),
    ),
    "direct_feedback_alignment": BackwardRule(
        lambda source, target, _: RevealedNoFeedback(source, target),
        lambda source, target, draw: DenseNoFeedback(source, target, draw()),
        direct=range,
    ),
}


def revealed_weights(
    problem: Problem,
    replicas: int,
    samples: int,
    tolerance: float,
    seed: int,
    dtype: torch.dtype,
    device: str,
    responses: bool,
) -> AnyWeights:
    """The infinite-width limit: populations of S neurons in each of R replicas (theory section 2).

    Without `responses`, its gradient-independence approximation.
    """
    if not isinstance(problem.network, LayeredNetwork):
        limit = LimitBuilder(problem, replicas, samples, tolerance, seed, dtype, device, responses)
        return Composition(problem.network.blocks, problem.data.shape, limit)
    factor = kernel_factor(joint_kernel(problem, device)).to(dtype)
    scales, depth, outputs = Scales.of(problem.network), problem.network.depth, problem.data.outputs
    shared = ARCHITECTURES[problem.network.architecture].skips
    populations = [
        Population(replicas, samples, (seed, index), dtype, device) for index in range(1 if shared else depth)
    ]
    layers = [
        Layer(replicas, samples, tolerance, dtype, device, population)
        for population in (populations * depth if shared else populations)
    ]
    rule = BACKWARD_RULES[problem.training.backward_rule]
    return Weights(
        input=InputMatrix(layers[0].population.gaussian(factor.shape[1]), factor),
        hidden=[rule.revealed(below.phi, above.g, responses) for below, above in itertools.pairwise(layers)],
        readout=RevealedReadout(layers[-1].phi, outputs),
        layers=layers,
        scales=scales,
        biases=[Bias(layer.population.gaussian(1)) for layer in layers] if scales.bias else [],
        feedback={
            index: Feedback(partial(layers[index].population.gaussian, outputs))
            for index in rule.direct(depth)
        },
    )


def dense_weights(
    problem: Problem, width: int, members: range, seed: int, dtype: torch.dtype, device: str
) -> AnyWeights:
    """Networks of width N, one for each member of the ensemble, each drawn from its own seed."""
    if not isinstance(problem.network, LayeredNetwork):
        finite = NetworkBuilder(problem, width, members, seed, dtype, device)
        return Composition(problem.network.blocks, problem.data.shape, finite)
    factor = kernel_factor(joint_kernel(problem, device)).to(dtype)
    depth, outputs = problem.network.depth, problem.data.outputs
    generators = [torch.Generator().manual_seed(seed_of(seed, member)) for member in members]

    def normal(*shape: int) -> Tensor:
        # Drawn on the CPU in float64, so that a seed means the same network on every device.
        drawn = [torch.randn(*shape, generator=g, dtype=torch.float64) for g in generators]
        return torch.stack(drawn).to(device, dtype)

    layers = [Layer(len(members), width, DENSE_RECORD_TOLERANCE, dtype, device) for _ in range(depth)]
    scales = Scales.of(problem.network)
    rule = BACKWARD_RULES[problem.training.backward_rule]
    return Weights(
        input=InputMatrix(normal(factor.shape[1], width), factor),
        hidden=[
            rule.dense(below.phi, above.g, partial(normal, width, width))
            for below, above in itertools.pairwise(layers)
        ],
        readout=Readout(normal(outputs, width)),
        layers=layers,
        scales=scales,
        biases=[Bias(normal(1, width)) for _ in range(depth)] if scales.bias else [],
        feedback={index: Feedback(partial(normal, outputs, width)) for index in rule.direct(depth)},
    )
