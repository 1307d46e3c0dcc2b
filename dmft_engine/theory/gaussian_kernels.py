"""Kernels at initialisation of a network of blocks: no sampling (theory section 5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dmft_engine.model.activations import ACTIVATIONS, Activation
from dmft_engine.model.gaussian_averages import Averages
from dmft_engine.theory.block_kernels import Field, Walk, equal_positions
from dmft_engine.theory.point_pairs import PointPairs, Rows
from dmft_schema.blocks import Block, shapes_through
from dmft_schema.closing import (
    SAMPLED_REPLICAS,
    KernelEntries,
    check_closed,
    is_sampled,
    mixes_positions,
)
from dmft_schema.shapes import Shape

JUDGED_POINTS = 32
"""Points of either kind on which the error of the kernels is estimated: they need no others for it."""


@dataclass(frozen=True)
class Inputs:
    """What a network is given, P points: of single positions by their kernel, else by the vectors themselves.

    Attributes:
        kernel: K^x averaged over positions, [P, P].
        vectors: [P, A, D], or None where the kernel is all there is (A = 1).
        positions: (), (times,) or (height, width).
    """

    kernel: Tensor
    vectors: Tensor | None = None
    positions: tuple[int, ...] = ()

    @classmethod
    def of_vectors(cls, vectors: Tensor) -> Inputs:
        """Points [P, times, D] or [P, height, width, D]."""
        rows = vectors.flatten(1, -2)
        flat = rows.flatten(1)
        return cls(flat @ flat.mT / flat.shape[1], rows, tuple(vectors.shape[1:-1]))

    @property
    def shape(self) -> Shape:
        """Of one point."""
        return Shape(self.positions, 0 if self.vectors is None else self.vectors.shape[-1])

    def between(self, pairs: PointPairs, all_positions: bool) -> Tensor:
        """K^x[(mu, a), (nu, a')] = x_mu,a . x_nu,a' / D of the pairs: [n, A, A'], or [n, A] at a = a'."""
        if self.vectors is None:
            kernel = self.kernel[pairs.first, pairs.second]
            return kernel[:, None, None] if all_positions else kernel[:, None]
        first, second = self.vectors[pairs.first], self.vectors[pairs.second]
        size = self.vectors.shape[-1]
        return first @ second.mT / size if all_positions else (first * second).sum(-1) / size

    def some(self, points: Tensor) -> Inputs:
        """Of these points alone."""
        vectors = None if self.vectors is None else self.vectors[points]
        return Inputs(self.kernel[points][:, points], vectors, self.positions)


@dataclass(frozen=True)
class InitialKernels:
    """Kernels at t = 0 for P points, averaged over positions (scalar over outputs: they are uncorrelated).

    Layer l is the l-th block that bears weights, h^l what it makes; layer L + 1 is the readout.

    Attributes:
        phi: Phi^l, of what layer l + 1 takes, for l = 1..L, each [P, P].
        g: G^l, of the gradient of h^l, the same.
        nngp: covariance of h^l for l = 1..L, and of the output, each [P, P]. Where layer l ends a residual
            branch, that of the sum of stream and branch, here and in ntk_by_layer.
        ntk_by_layer: tangent kernel of h^l for l = 1..L, and of the output, each [P, P].
    """

    phi: list[Tensor]
    g: list[Tensor]
    nngp: list[Tensor]
    ntk_by_layer: list[Tensor]

    @property
    def by_kind(self) -> tuple[list[Tensor], ...]:
        """All of them."""
        return self.phi, self.g, self.nngp, self.ntk_by_layer

    @property
    def ntk(self) -> Tensor:
        """K, that of the output, [P, P]."""
        return self.ntk_by_layer[-1]


def initial_kernels(
    blocks: Sequence[Block],
    inputs: Inputs,
    averages: Callable[[Activation], Averages] = lambda activation: activation.averages,
    seed: int = 0,
    check: Callable[[], None] = lambda: None,
) -> InitialKernels:
    """All kernels of the network at t = 0, by the recursions of its blocks.

    G^l is the derivative of the output's tangent kernel by that of h^l, in which it is linear.

    Args:
        blocks: from the data to the readout, of kinds whose kernels close (dmft_schema/closing.py).
        inputs: the points.
        averages: which averages of an activation are used.
        seed: of heads of attention, the only thing that is sampled.
        check: called between portions; what it raises ends the work.

    Raises:
        NotClosed: the kernels of these blocks do not close.
    """
    check_closed(blocks)
    points, rows = len(inputs.kernel), Rows()
    all_positions = bool(inputs.positions) and any(mixes_positions(block) for block in blocks)
    found: InitialKernels | None = None
    entries = KernelEntries.of(blocks, shapes_through(blocks, inputs.shape))
    # Heads are drawn for all rows at once.
    most = points**2 if entries.sampled else entries.pairs_together
    for pairs in PointPairs.portions(points, most, inputs.kernel.device):
        if found is not None:
            check()
        passed = Walk(pairs, rows, ACTIVATIONS.__getitem__, averages, seed)
        covariance = inputs.between(pairs, all_positions)
        tangent = torch.zeros_like(covariance, requires_grad=True)
        with torch.enable_grad():
            output = passed.through(blocks, Field(covariance, tangent, None, inputs.positions), False, ())
            total = output.tangent.sum()
        *layers, _ = passed.layers
        leaves = [part for layer in layers for part in layer.tangents]
        slopes = iter(torch.autograd.grad(total, leaves, materialize_grads=True))
        gradients = [_joined([next(slopes) for _ in layer.tangents], layer.made.tangent) for layer in layers]
        portion = [
            [layer.taken.covariance for layer in passed.layers[1:]],
            gradients,
            [layer.made.covariance for layer in passed.layers],
            [layer.made.tangent for layer in passed.layers],
        ]
        if found is None:
            found = InitialKernels(
                *([inputs.kernel.new_zeros(points, points) for _ in kind] for kind in portion)
            )
        for kind, written in zip(portion, found.by_kind, strict=True):
            for values, matrix in zip(kind, written, strict=True):
                pairs.spread(equal_positions(values.detach()).mean(1), matrix)
    assert found is not None
    return found


def _joined(parts: list[Tensor], like: Tensor) -> Tensor:
    return parts[0] if parts[0].ndim == like.ndim else torch.stack(parts, 1)


def kernels_with_error(
    blocks: Sequence[Block], inputs: Inputs, check: Callable[[], None] = lambda: None
) -> tuple[InitialKernels, float]:
    """Kernels, and an estimate of the largest error of an entry over sqrt(K_aa K_bb).

    What is sampled is so in SAMPLED_REPLICAS independent ways, of which the mean is taken; the error is then
    three standard errors of it. `check` is called between parts of the work, which what it raises ends.
    """
    if not is_sampled(blocks):
        kernels = initial_kernels(blocks, inputs, check=check)
        return kernels, kernel_error(blocks, inputs, kernels, check)
    replicas = []
    for seed in range(SAMPLED_REPLICAS):
        check()
        replicas.append(initial_kernels(blocks, inputs, seed=seed))
    mean = InitialKernels(
        *(
            [torch.stack(of_layer).mean(0) for of_layer in zip(*of_kind, strict=True)]
            for of_kind in zip(*(replica.by_kind for replica in replicas), strict=True)
        )
    )
    worst = 0.0
    for kind, found in enumerate(mean.by_kind):
        for layer, kernel in enumerate(found):
            drawn = torch.stack([replica.by_kind[kind][layer] for replica in replicas])
            off = drawn.std(0) / SAMPLED_REPLICAS**0.5
            worst = max(worst, 3 * _relative(off, kernel))
    return mean, worst


def _relative(off: Tensor, kernel: Tensor) -> float:
    """The largest of `off` over sqrt(K_aa K_bb)."""
    root = kernel.diagonal().clamp_min(0).sqrt()
    size = (root[:, None] * root[None, :]).clamp_min(torch.finfo(kernel.dtype).tiny)
    return float((off.abs() / size).max())


def kernel_error(
    blocks: Sequence[Block],
    inputs: Inputs,
    kernels: InitialKernels,
    check: Callable[[], None] = lambda: None,
) -> float:
    """Estimate of the largest error of an entry over sqrt(K_aa K_bb), from rounding and quadrature.

    The recursion is run again with covariances that differ by a rounding in every layer, and with twice the
    nodes where there are any, for points of all norms and for those that are closest to another up to sign,
    which a network with large weights drives apart.
    """
    count = max(2, int(JUDGED_POINTS / math.prod(inputs.positions) ** 0.5))
    some = _judged(inputs.kernel, count)

    def finer(activation: Activation) -> Averages:
        again = activation.finer or activation.averages
        return lambda pairs: again(pairs.rounded_otherwise())

    other = initial_kernels(blocks, inputs.some(some), finer, check=check)

    return max(
        _relative(found[some][:, some] - better, better)
        for mine, theirs in zip(kernels.by_kind, other.by_kind, strict=True)
        for found, better in zip(mine, theirs, strict=True)
    )


def _judged(inputs: Tensor, most: int) -> Tensor:
    variances = inputs.diagonal()
    count = min(len(inputs), most)
    evenly = torch.linspace(0, len(inputs) - 1, count).round().long().to(inputs.device)
    root = variances.clamp_min(torch.finfo(inputs.dtype).tiny).sqrt()
    cosine = (inputs / root[:, None] / root[None, :]).abs().fill_diagonal_(0)
    # Points that coincide are taken as such, without an error.
    closest, partner = torch.where(cosine < 1, cosine, 0).max(1)
    near = closest.topk(count // 2).indices
    return torch.cat([variances.argsort()[evenly], near, partner[near]]).unique()
