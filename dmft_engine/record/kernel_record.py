"""Two-time kernels in factored form, kept while a solve runs and written at its end."""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import lapack
from torch import Tensor


class FactoredKernel:
    """A kernel <a(t) a(s)> averaged over replicas and neurons, from coordinates at each time.

    Coordinates of all times in one orthonormal basis are a factor: <a(t) a(s)> = c(t) c(s)^T / S.
    """

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._columns: list[Tensor] = []

    @property
    def recorded(self) -> bool:
        """Whether any time was kept."""
        return bool(self._columns)

    def record(self, coordinates: list[Tensor]) -> None:
        """Keep one time's coordinates: one [R, P, k] for each output; k may have grown."""
        width = max(block.shape[-1] for block in coordinates)
        padded = [torch.nn.functional.pad(block, (0, width - block.shape[-1])) for block in coordinates]
        self._columns.append(torch.stack(padded, dim=2))

    def take_factors(self) -> Tensor:
        """[R, K, P, C, k]: each replica's kernel is factor factor^T. K is the number of times.

        The record is empty afterwards: of a long solve, it is most of the memory.
        """
        replicas, points, outputs, width = self._columns[-1].shape
        stacked = self._columns[-1].new_zeros(replicas, len(self._columns), points, outputs, width)
        for time, column in enumerate(self._columns):
            stacked[:, time, ..., : column.shape[-1]] = column
        self._columns.clear()
        return stacked.mul_(self._samples**-0.5)


def mean_factor(factors: np.ndarray) -> np.ndarray:
    """A factor [..., R k] of the mean over replicas of the kernels with factors [R, ..., k]."""
    replicas = factors.shape[0]
    return np.moveaxis(factors, 0, -2).reshape(*factors.shape[1:-1], -1) / replicas**0.5


def factor_of(kernel: np.ndarray, relative_error: float) -> np.ndarray:
    """A factor [n, k] of a positive semidefinite kernel [n, n], by Cholesky with pivots.

    Args:
        kernel: [n, n].
        relative_error: largest error allowed in an entry, relative to the largest.
    """
    lower, pivots, rank, _ = lapack.dpstrf(kernel, tol=relative_error * kernel.diagonal().max(), lower=1)
    factor = np.empty((len(kernel), max(rank, 1)))
    factor[pivots - 1] = np.tril(lower)[:, : max(rank, 1)]
    return factor


def compress(factor: np.ndarray, relative_error: float) -> np.ndarray:
    """A narrower factor [..., k'] of the same kernel.

    Args:
        factor: [..., k], kernel = factor factor^T over the flattened leading axes.
        relative_error: largest error allowed in a diagonal entry (and so, by Cauchy-Schwarz, in any
            entry), relative to the largest diagonal entry.
    """
    flat = factor.reshape(-1, factor.shape[-1])
    _, vectors = np.linalg.eigh((flat.T @ flat).astype(np.float64))
    rotated = flat @ vectors[:, ::-1].astype(factor.dtype)
    # Error of dropping columns k'.. in each diagonal entry.
    tail = np.square(rotated[:, ::-1])
    np.cumsum(tail, axis=1, out=tail)
    worst = tail.max(axis=0)[::-1]
    kept = max(1, int((worst > relative_error * worst[0]).sum()))
    return np.ascontiguousarray(rotated[:, :kept]).reshape(*factor.shape[:-1], kept)
