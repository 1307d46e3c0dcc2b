"""Weights at t = 0: an infinite-width network, or dense ones."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from dmft_engine.fields import Scales
from dmft_engine.population import Layer, Population
from dmft_engine.problem import Problem
from dmft_engine.sampling import seed_of
from dmft_engine.weights import (
    Bias,
    DenseMatrix,
    InputMatrix,
    Readout,
    RevealedMatrix,
    RevealedReadout,
    Weights,
)

DENSE_RECORD_TOLERANCE = 1e-3
"""Tolerance of the bases that a dense network's kernels are recorded in."""


def kernel_factor(kernel: Tensor) -> Tensor:
    """X [P, rank] with X X^T = kernel; directions below rounding are left out."""
    values, vectors = torch.linalg.eigh(kernel)
    kept = values > len(values) * torch.finfo(kernel.dtype).eps * values[-1]
    return vectors[:, kept] * values[kept].sqrt()


def joint_kernel(problem: Problem, device: str) -> Tensor:
    """K^x of all points in float64, [A, A]."""
    return torch.as_tensor(problem.data.kernel, dtype=torch.float64, device=device)


def revealed_weights(
    problem: Problem,
    replicas: int,
    samples: int,
    tolerance: float,
    seed: int,
    dtype: torch.dtype,
    device: str,
    responses: bool,
) -> Weights:
    """The infinite-width limit: R populations of S neurons in each layer (theory section 2).

    Without `responses`, its gradient-independence approximation.
    """
    factor = kernel_factor(joint_kernel(problem, device)).to(dtype)
    scales = Scales.of(problem.network)
    populations = [
        Population(replicas, samples, tolerance, (seed, layer), dtype, device)
        for layer in range(problem.network.depth)
    ]
    return Weights(
        input=InputMatrix(populations[0].gaussian(factor.shape[1]), factor),
        hidden=[
            RevealedMatrix(source, target, responses) for source, target in itertools.pairwise(populations)
        ],
        readout=RevealedReadout(populations[-1], problem.data.outputs),
        layers=populations,
        scales=scales,
        biases=[Bias(population.gaussian(1)) for population in populations] if scales.bias else [],
    )


def dense_weights(
    problem: Problem, width: int, members: range, seed: int, dtype: torch.dtype, device: str
) -> Weights:
    """Networks of width N, one for each member of the ensemble, each drawn from its own seed."""
    factor = kernel_factor(joint_kernel(problem, device)).to(dtype)
    depth, outputs = problem.network.depth, problem.data.outputs
    generators = [torch.Generator().manual_seed(seed_of(seed, member)) for member in members]

    def normal(*shape: int) -> Tensor:
        # Drawn on the CPU in float64, so that a seed means the same network on every device.
        drawn = [torch.randn(*shape, generator=g, dtype=torch.float64) for g in generators]
        return torch.stack(drawn).to(device, dtype)

    layers = [Layer(len(members), width, DENSE_RECORD_TOLERANCE, dtype, device) for _ in range(depth)]
    scales = Scales.of(problem.network)
    return Weights(
        input=InputMatrix(normal(factor.shape[1], width), factor),
        hidden=[DenseMatrix(normal(width, width)) for _ in range(depth - 1)],
        readout=Readout(normal(outputs, width)),
        layers=layers,
        scales=scales,
        biases=[Bias(normal(1, width)) for _ in range(depth)] if scales.bias else [],
    )
