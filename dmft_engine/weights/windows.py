"""Which positions a filter reads: coordinates spread over its offsets, and sums over them (theory section 9).

Fields of a network with positions are [R, rows, S], a row being a point at a position, positions fastest. A
filter of B offsets is B matrices between the same two nodes; what is said of all of them at once has a last
axis [n B] of n directions with B offsets each, offsets fastest.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Reach(Protocol):
    """From which rows to which a matrix goes, one way.

    Attributes:
        count: B, its offsets.
    """

    @property
    def count(self) -> int: ...

    def spread(self, values: Tensor) -> Tensor:
        """What each row gets by each offset: [R, rows, n] -> [R, rows', n B]."""

    def total(self, values: Tensor) -> Tensor:
        """What each row gets of values by offset, summed: [R, rows, n B] -> [R, rows', n]."""

    def gram(self, products: Tensor) -> Tensor:
        """sum_b of the rows that two rows get by offset b: [R, rows, rows2] -> [R, rows', rows2']."""


class SameRow:
    """Of a matrix that takes each row to itself."""

    count = 1

    def spread(self, values: Tensor) -> Tensor:
        return values

    def total(self, values: Tensor) -> Tensor:
        return values

    def gram(self, products: Tensor) -> Tensor:
        return products


@dataclass(frozen=True)
class Reading:
    """Of a filter.

    Attributes:
        table: [A', B], the position that each of A' positions gets by each offset; A where it gets none.
        before: A, the number of positions that it reads from.
    """

    table: Tensor
    before: int

    @property
    def count(self) -> int:
        return self.table.shape[1]

    def spread(self, values: Tensor) -> Tensor:
        replicas, _, width = values.shape
        by_position = _with_nothing(values.unflatten(1, (-1, self.before)), 2)
        read = by_position.index_select(2, self.table.flatten())
        read = read.unflatten(2, self.table.shape).transpose(3, 4)
        return read.reshape(replicas, -1, width * self.count)

    def total(self, values: Tensor) -> Tensor:
        by_offset = values.unflatten(1, (-1, self.before)).unflatten(3, (-1, self.count))
        summed: Tensor | float = 0.0
        for offset in range(self.count):
            read = _with_nothing(by_offset[..., offset], 2).index_select(2, self.table[:, offset])
            summed = summed + read
        assert isinstance(summed, Tensor)
        return summed.flatten(1, 2)

    def gram(self, products: Tensor) -> Tensor:
        blocks = products.unflatten(2, (-1, self.before)).unflatten(1, (-1, self.before))
        blocks = _with_nothing(_with_nothing(blocks, 2), 4)
        summed: Tensor | float = 0.0
        for positions in self.table.unbind(1):
            summed = summed + blocks.index_select(2, positions).index_select(4, positions)
        assert isinstance(summed, Tensor)
        return summed.flatten(3, 4).flatten(1, 2)


def _with_nothing(values: Tensor, axis: int) -> Tensor:
    """With one more position, where all is zero."""
    shape = list(values.shape)
    shape[axis] = 1
    return torch.cat([values, values.new_zeros(shape)], dim=axis)


@dataclass(frozen=True)
class Window:
    """Both ways of a matrix.

    Attributes:
        forward: from rows of its source to rows of its target.
        back: the other way.
    """

    forward: Reach
    back: Reach


WHOLE = Window(SameRow(), SameRow())
"""Of a matrix that acts at each row alone."""


def filter_window(
    positions: Sequence[int], after: Sequence[int], size: int, stride: int, padding: str, device: str
) -> Window:
    """Of a filter with size^d offsets, row-major, as torch.nn's convolutions have them.

    Args:
        positions: along each axis of what is read, [d].
        after: along each axis of what is written, [d].
        size, stride: along every axis.
        padding: same (zeros around, offsets from -floor((size - 1) / 2)), valid or circular.
        device: where tables lie.
    """
    first = 0 if padding == "valid" else -((size - 1) // 2)
    count, written = math.prod(positions), math.prod(after)
    reads = torch.full((written, size ** len(positions)), count)
    read_by = torch.full((count, size ** len(positions)), written)
    for place, at in enumerate(itertools.product(*map(range, after))):
        for offset, shift in enumerate(itertools.product(range(size), repeat=len(positions))):
            seen = [stride * a + first + b for a, b in zip(at, shift, strict=True)]
            if padding == "circular":
                seen = [s % n for s, n in zip(seen, positions, strict=True)]
            if not all(0 <= s < n for s, n in zip(seen, positions, strict=True)):
                continue
            index = 0
            for s, n in zip(seen, positions, strict=True):
                index = index * n + s
            reads[place, offset] = index
            read_by[index, offset] = place
    return Window(Reading(reads.to(device), count), Reading(read_by.to(device), written))
