"""Kernels of attention, whose softmax has no closed averages: by sampled heads (theory section 12).

Queries, keys and values are Gaussian fields of known covariance, independent of each other, so heads are
drawn outright; no width is finite. What training adds to them at first order, dq, dk and dv, is Gaussian too,
with their tangent kernel as covariance: the tangent kernel of a head's output is the covariance of its
derivative along them. Gradients are drawn likewise, and carried back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dmft_engine.factorisation import kernel_factor
from dmft_engine.populations.sampling import SobolNormals
from dmft_engine.theory.point_pairs import PointPairs
from dmft_schema.blocks import AttentionBlock

MOST_HEADS, FEWEST_HEADS = 1 << 12, 1 << 8
"""Heads drawn for a kernel."""

WORK = 1 << 27
"""Products that heads may take for as many to be drawn: of rows with each other, and with scores."""

MOST_ENTRIES = 1 << 22
"""Numbers of one field that are held at once."""


@dataclass(frozen=True)
class Heads:
    """Heads on rows of known kernels.

    Attributes:
        block: what they compute.
        factor: X [P A, r], X X^T being the covariance of what they take.
        positions: A.
        seed: of the draws.
    """

    block: AttentionBlock
    factor: Tensor
    positions: int
    seed: tuple[int, ...]

    @classmethod
    def on(cls, block: AttentionBlock, covariance: Tensor, positions: int, seed: tuple[int, ...]) -> Heads:
        """On rows of this covariance [P A, P A], positions fastest."""
        return cls(block, kernel_factor(covariance), positions, seed)

    def forward(self, tangent: Tensor) -> tuple[Tensor, Tensor]:
        """Covariance and tangent kernel of what they put out, [P A, P A], from the tangent kernel of queries,
        keys and values."""
        factor = kernel_factor(tangent)
        averages = _Averages(tangent), _Averages(tangent)
        for head, normals in self._drawn():
            averages[0].add(head.output())
            averages[1].add(head.derivative(*(self._field(normals, factor) for _ in range(3))))
        return averages[0].value, averages[1].value

    def gradient(self, gradient: Tensor) -> Tensor:
        """The sum of those of queries, keys and values, from that of what they put out, [P A, P A]."""
        factor = kernel_factor(gradient)
        average = _Averages(gradient)
        for head, normals in self._drawn():
            average.add(torch.cat(head.backward(self._field(normals, factor)), 0))
        return 3 * average.value

    def _drawn(self) -> Iterator[tuple[_Head, SobolNormals]]:
        """Some heads at a time, always the same, and where to draw further numbers for them."""
        rows, size = len(self.factor), self.block.head_size
        heads = WORK // (rows * (rows + 8 * self.positions))
        heads = 1 << (min(max(heads, FEWEST_HEADS), MOST_HEADS).bit_length() - 1)
        together = max(1, MOST_ENTRIES // (rows * max(size, self.positions)))
        together = min(heads, 1 << (together.bit_length() - 1))
        for part in range(heads // together):
            normals = SobolNormals(
                1, together, (*self.seed, part), self.factor.dtype, str(self.factor.device)
            )
            query, key, value = (self._field(normals, self.factor) for _ in range(3))
            yield _Head(query, key, value, self.block), normals

    def _field(self, normals: SobolNormals, factor: Tensor) -> Tensor:
        """Of covariance X X^T between rows, independent between neurons: [S, P, A, d]."""
        rank, size = factor.shape[1], self.block.head_size
        drawn = torch.stack([normals.draw(rank)[0] for _ in range(size)])
        field = torch.einsum("xr,drs->sxd", factor, drawn)
        return field.unflatten(1, (-1, self.positions))


class _Averages:
    """<x x'> between rows over heads and their neurons."""

    def __init__(self, like: Tensor) -> None:
        self._total = torch.zeros_like(like)
        self._count = 0

    def add(self, field: Tensor) -> None:
        """Of some heads, [S, P, A, d]."""
        rows = field.flatten(1, 2).transpose(0, 1).flatten(1)
        self._total += rows @ rows.mT
        self._count += rows.shape[1]

    @property
    def value(self) -> Tensor:
        """[P A, P A]."""
        return self._total / self._count


class _Head:
    """softmax(scale q k^T) v of heads drawn, fields [S, P, A, d]."""

    def __init__(self, query: Tensor, key: Tensor, value: Tensor, block: AttentionBlock) -> None:
        self.query, self.key, self.value = query, key, value
        self.scale = block.head_size**-0.5 if block.scores == "sqrt" else 1 / block.head_size
        scores = self.scale * query @ key.mT
        if block.causal:
            later = torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(later, -math.inf)
        self.weights = scores.softmax(-1)

    def output(self) -> Tensor:
        return self.weights @ self.value

    def _through_softmax(self, scores: Tensor) -> Tensor:
        """Derivative along scores, or of scores along the weights: it is symmetric."""
        return self.weights * (scores - (self.weights * scores).sum(-1, keepdim=True))

    def derivative(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Of the output along these."""
        change = self.scale * (query @ self.key.mT + self.query @ key.mT)
        return self._through_softmax(change) @ self.value + self.weights @ value

    def backward(self, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of queries, keys and values from that of the output."""
        scores = self._through_softmax(output @ self.value.mT)
        return (
            self.scale * scores @ self.key,
            self.scale * scores.mT @ self.query,
            self.weights.mT @ output,
        )


class Attended(torch.autograd.Function):
    """Heads.forward of all pairs of points, [n, A, A] to two of [n, A, A]; Heads.gradient is the way back
    of the tangent kernel."""

    @staticmethod
    def forward(ctx: Any, tangent: Tensor, heads: Heads, pairs: PointPairs) -> tuple[Tensor, Tensor]:
        ctx.heads, ctx.pairs = heads, pairs
        covariance, made = (pairs.of_rows(rows) for rows in heads.forward(pairs.to_rows(tangent)))
        ctx.mark_non_differentiable(covariance)
        return covariance, made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.pairs.of_rows(ctx.heads.gradient(ctx.pairs.to_rows(gradients[1]))), None, None
