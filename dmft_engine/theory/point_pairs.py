"""Kernels of infinite networks, pair of points by pair of points (theory sections 5 and 8).

A kernel entry between rows (mu, a) and (nu, b) depends on other pairs of points by nothing but the variances
of the rows of mu and of nu. So pairs are worked on in portions that fit into memory, each point's pair with
itself first, and those leave their variances behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dmft_engine.model.gaussian_averages import Averages, Pairs
from dmft_engine.model.logistic_mixture import NODES
from dmft_schema.memory import CHUNK_BYTES

ENTRIES_TOGETHER = CHUNK_BYTES["static"] // (8 * 8 * 2)
"""Entries of a kernel times nodes of a rule that are worked on side by side."""


def averages_of(averages: Averages, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """<phi(u) phi(v)> and <phi'(u) phi'(v)> at variances a and b and covariances c, all of c's shape."""
    a, b, flat = a.expand_as(c).reshape(-1), b.expand_as(c).reshape(-1), c.reshape(-1)
    found = c.new_empty(2, len(flat))
    size = ENTRIES_TOGETHER // NODES
    for start in range(0, len(flat), size):
        part = slice(start, start + size)
        found[:, part] = torch.stack(averages(Pairs.of(a[part], b[part], flat[part])))
    return found[0].view_as(c), found[1].view_as(c)


@dataclass(frozen=True)
class PointPairs:
    """Some pairs (mu, nu) of P points.

    Attributes:
        first, second: mu and nu, each [n].
        points: P.
    """

    first: Tensor
    second: Tensor
    points: int

    @classmethod
    def portions(cls, points: int, most: int, device: torch.device | str = "cpu") -> Iterator[PointPairs]:
        """All pairs mu <= nu, at most `most` together, those of a point with itself first."""
        own = torch.arange(points, device=device)
        row, column = torch.triu_indices(points, points, offset=1, device=device)
        first, second = torch.cat([own, row]), torch.cat([own, column])
        for start in range(0, len(first), most):
            yield cls(first[start : start + most], second[start : start + most], points)

    @property
    def equal(self) -> Tensor:
        """[n], whether mu = nu."""
        return self.first == self.second

    @property
    def are_all(self) -> bool:
        return len(self.first) == self.points * (self.points + 1) // 2

    def to_rows(self, kernel: Tensor) -> Tensor:
        """[P A, P A], positions fastest, of a kernel [n, A, A] of all pairs."""
        assert self.are_all, "kernels between all rows need all pairs of points"
        blocks = kernel.new_zeros(self.points, self.points, *kernel.shape[1:])
        blocks[self.second, self.first] = kernel.mT
        blocks[self.first, self.second] = kernel
        return blocks.transpose(1, 2).flatten(2).flatten(0, 1)

    def of_rows(self, matrix: Tensor) -> Tensor:
        """[n, A, A] of a kernel between all rows."""
        blocks = matrix.unflatten(1, (self.points, -1)).unflatten(0, (self.points, -1)).transpose(1, 2)
        return blocks[self.first, self.second]

    def spread(self, values: Tensor, matrix: Tensor) -> None:
        """Write values [n] of these pairs into a symmetric matrix [P, P]."""
        matrix[self.first, self.second] = values
        matrix[self.second, self.first] = values


@dataclass
class Rows:
    """What is known of single rows (mu, a), by the place in the network: filled by pairs of equal points.

    Attributes:
        known: place -> [P, A].
    """

    known: dict[tuple[str | int, ...], Tensor] = field(default_factory=dict)

    def take(self, place: tuple[str | int, ...], pairs: PointPairs, own: Tensor) -> Tensor:
        """Values [P, A] of the rows, of which `own` [n, A] holds those of the pairs of equal points."""
        if place not in self.known:
            self.known[place] = own.new_zeros(pairs.points, own.shape[1])
        self.known[place][pairs.first[pairs.equal]] = own[pairs.equal]
        return self.known[place]
