"""Two-time kernels in factored form, kept while a solve runs and written at its end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dmft_engine.factorisation import principal_axes
from dmft_engine.state import Stateful

MOST_ROTATED = 1024
"""Width up to which a factor is compressed by its principal axes, which takes less than a second."""

ROWS_AT_A_TIME = 256
"""Rows of a kernel that are multiplied out between two looks at whether to go on."""


class FactoredKernel(Stateful):
    """A kernel <a(t) a(s)> averaged over replicas and neurons, from coordinates at each time.

    Coordinates of all times in one orthonormal basis are a factor: <a(t) a(s)> = c(t) c(s)^T / S.
    """

    kept: ClassVar[tuple[str, ...]] = ("_columns",)

    def __init__(self, samples: int, each_position: bool = False) -> None:
        """`each_position`: of points with positions, keep the kernel between all of them, not its mean."""
        self._each_position = each_position
        self._samples = samples
        self._columns: list[Tensor] = []

    @property
    def width(self) -> int:
        """Coordinates kept; 0 if no time was."""
        if not self._columns:
            return 0
        return self._columns[-1].shape[-1 if self._each_position else 3 :].numel()

    @property
    def members(self) -> int:
        """Replicas; 0 if no time was kept."""
        return len(self._columns[-1]) if self._columns else 0

    def record(self, coordinates: list[Tensor]) -> None:
        """Keep one time's coordinates: one [R, P, k] for each output; k may have grown.

        Of rows that are positions of points, [R, P, A, k] each.
        """
        width = max(block.shape[-1] for block in coordinates)
        padded = [torch.nn.functional.pad(block, (0, width - block.shape[-1])) for block in coordinates]
        self._columns.append(torch.stack(padded, dim=2))

    def factors(self) -> Tensor:
        """[R, K, P, C, k], or [R, K, P, C, A, k] between positions: each replica's kernel is factor factor^T.

        K is the number of times.
        """
        replicas, *shape = self._columns[-1].shape
        stacked = self._columns[-1].new_zeros(replicas, len(self._columns), *shape)
        for time, column in enumerate(self._columns):
            stacked[:, time, ..., : column.shape[-1]] = column
        if self._each_position:
            return stacked.mul_(self._samples**-0.5)
        # (1/A) sum_a c_a . c_a / S, with all positions' coordinates side by side
        positions = math.prod(shape[2:-1])
        return stacked.mul_((self._samples * positions) ** -0.5).flatten(4)


@dataclass(frozen=True)
class LateFactors:
    """Factors of one layer's kernel that are made when it is written: of a long solve, they are much of the
    memory.

    Attributes:
        make: makes the factors [R, K, A, C or 1, k] of each member's kernel.
        width: R k, as far as that is known beforehand: what writing them will cost.
    """

    make: Callable[[], np.ndarray]
    width: int = 0


def merged_factors(kernels: Sequence[FactoredKernel]) -> LateFactors:
    """Of records of the same times, their members one after another; none of them empty."""

    def make() -> np.ndarray:
        factors = [kernel.factors().cpu().numpy() for kernel in kernels]
        if len(factors) == 1:
            return factors[0]
        widest = max(factor.shape[-1] for factor in factors)
        no_padding = [(0, 0)] * (factors[0].ndim - 1)
        return np.concatenate([np.pad(f, [*no_padding, (0, widest - f.shape[-1])]) for f in factors])

    members = sum(kernel.members for kernel in kernels)
    return LateFactors(make, members * max(kernel.width for kernel in kernels))


def mean_factor(factors: np.ndarray) -> np.ndarray:
    """A factor [..., R k] of the mean over replicas of the kernels with factors [R, ..., k]."""
    replicas = factors.shape[0]
    return np.moveaxis(factors, 0, -2).reshape(*factors.shape[1:-1], -1) / replicas**0.5


def compress(factor: np.ndarray, relative_error: float) -> np.ndarray:
    """A narrower factor [..., k'] of the same kernel, of the least width.

    Args:
        factor: [..., k], kernel = factor factor^T over the flattened leading axes.
        relative_error: largest error allowed in a diagonal entry (and so, by Cauchy-Schwarz, in any
            entry), relative to the largest diagonal entry.
    """
    flat = factor.reshape(-1, factor.shape[-1])
    axes = principal_axes((flat.T @ flat).astype(np.float64))
    rotated = flat @ axes.astype(factor.dtype)
    # Error of dropping columns k'.. in each diagonal entry.
    tail = np.square(rotated[:, ::-1])
    np.cumsum(tail, axis=1, out=tail)
    worst = tail.max(axis=0)[::-1]
    kept = max(1, int((worst > relative_error * worst[0]).sum()))
    return np.ascontiguousarray(rotated[:, :kept]).reshape(*factor.shape[:-1], kept)


def _nothing() -> None:
    pass


def dense_or_factor(
    factor: np.ndarray, relative_error: float, check: Callable[[], None] = _nothing
) -> tuple[np.ndarray, bool]:
    """A kernel that is too large to be written densely for its own sake, in the form that is worth its cost.

    A factor no wider than MOST_ROTATED is compressed by its principal axes. Wider ones cost too much for
    that: they are narrowed by Cholesky with pivots, row by row, as long as that at least halves them. A
    factor wider than the kernel is multiplied out first, and left so unless it narrows to a quarter.

    Args:
        factor: [..., k].
        relative_error: as for `compress`.
        check: called every moment; may raise to give up.

    Returns:
        The kernel [..., ...] and True, or a factor [..., k'] and False.
    """
    shape, width = factor.shape[:-1], factor.shape[-1]
    flat = factor.reshape(-1, width)
    if width <= MOST_ROTATED:
        return compress(factor, relative_error), False
    if width < len(flat):
        narrow = _narrowed(
            lambda row: flat @ flat[row], np.square(flat).sum(1), width // 2, relative_error, check
        )
        return (factor if narrow is None else narrow.reshape(*shape, -1)), False
    kernel = np.empty((len(flat), len(flat)), factor.dtype)
    for start in range(0, len(flat), ROWS_AT_A_TIME):
        check()
        rows = slice(start, start + ROWS_AT_A_TIME)
        np.matmul(flat[rows], flat.T, out=kernel[rows])
    narrow = _narrowed(lambda row: kernel[row], kernel.diagonal(), len(flat) // 4, relative_error, check)
    if narrow is None:
        return kernel.reshape(*shape, *shape), True
    return narrow.reshape(*shape, -1), False


def _narrowed(
    row_of: Callable[[int], np.ndarray],
    diagonal: np.ndarray,
    most: int,
    relative_error: float,
    check: Callable[[], None],
) -> np.ndarray | None:
    """A factor [n, k'] by Cholesky with pivots, k' <= `most`; None if that is too narrow.

    Args:
        row_of: index -> the row [n] of the kernel.
        diagonal: [n], of the kernel.
        most, relative_error, check: see `dense_or_factor`.
    """
    left = diagonal.astype(np.float64)
    limit = relative_error * left.max()
    columns = np.zeros((most, len(left)), diagonal.dtype)
    for found in range(most):
        check()
        pivot = int(left.argmax())
        if left[pivot] <= limit:
            return np.ascontiguousarray(columns[: max(found, 1)].T)
        column = row_of(pivot) - columns[:found, pivot] @ columns[:found]
        columns[found] = column / np.sqrt(left[pivot])
        left -= np.square(columns[found], dtype=np.float64)
        left[pivot] = 0.0
    return np.ascontiguousarray(columns.T) if left.max() <= limit else None
