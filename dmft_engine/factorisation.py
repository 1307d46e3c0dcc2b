"""Every factorisation of the engine: what is not finite is seen, tries are bounded, failures have names.

Positive semidefinite matrices made of averages are so up to their rounding; the smallest multiple of the
identity that lets Cholesky's go through is added, up to MOST_JITTER of the largest entry.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import lapack
from torch import Tensor

from dmft_engine.errors import NotFinite, NotPositive

JITTER_OVER_ROUNDING = 10
"""Added to the diagonal of a covariance before it is factored, over the rounding of its largest entry."""

MOST_JITTER = 1e-3
"""Largest multiple of the largest entry that may be added: what needs more is no covariance."""


def check_finite(matrix: Tensor) -> Tensor:
    """The same matrix.

    Raises:
        NotFinite: it is not.
    """
    if not bool(matrix.isfinite().all()):
        raise NotFinite
    return matrix


def cholesky(covariance: Tensor, rounding: float = 0.0) -> Tensor:
    """Lower factors [R, n, n] of covariances [R, n, n], which are changed in place.

    Args:
        covariance: averages, whose entries are known to within `rounding` of the largest.
        rounding: 0 to try without anything added first.

    Raises:
        NotFinite: an entry is not finite.
        NotPositive: a matrix is negative by more than MOST_JITTER.
    """
    if not covariance.numel():
        return covariance
    largest = check_finite(covariance).amax((-2, -1))[..., None]
    jitter = JITTER_OVER_ROUNDING * rounding
    while True:
        covariance.diagonal(dim1=-2, dim2=-1).add_(jitter * largest)
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if not bool(failed.any()):
            return factor
        jitter = max(10 * jitter, torch.finfo(covariance.dtype).eps)
        if jitter > MOST_JITTER:
            raise NotPositive(covariance.shape[-1])


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [.., n], increasing, and eigenvectors [.., n, n] of symmetric matrices.

    Raises:
        NotFinite: an entry is not finite.
    """
    values, vectors = torch.linalg.eigh(check_finite(matrix))
    return values, vectors


def kernel_factor(kernel: Tensor) -> Tensor:
    """X [P, rank] with X X^T = kernel; directions below rounding are left out.

    Raises:
        NotFinite: an entry is not finite.
    """
    values, vectors = eigh(kernel)
    kept = values > len(values) * torch.finfo(kernel.dtype).eps * values[-1]
    return vectors[:, kept] * values[kept].sqrt()


def pseudo_inverse(gram: Tensor, dependent: float) -> Tensor:
    """Of positive semidefinite matrices; eigenvalues below `dependent` of the largest count as zero.

    Raises:
        NotFinite: an entry is not finite.
    """
    return torch.linalg.pinv(check_finite(gram), hermitian=True, rtol=dependent)


def pivoted_factor(kernel: NDArray, relative_error: float) -> NDArray:
    """A factor [n, k] of a positive semidefinite kernel [n, n], by Cholesky with pivots.

    Args:
        kernel: [n, n].
        relative_error: largest error allowed in an entry, relative to the largest.

    Raises:
        NotFinite: an entry is not finite.
    """
    if not np.isfinite(kernel).all():
        raise NotFinite
    lower, pivots, rank, _ = lapack.dpstrf(kernel, tol=relative_error * kernel.diagonal().max(), lower=1)
    factor = np.empty((len(kernel), max(rank, 1)))
    factor[pivots - 1] = np.tril(lower)[:, : max(rank, 1)]
    return factor


def principal_axes(gram: NDArray) -> NDArray:
    """Eigenvectors [n, n] of a symmetric matrix, by decreasing eigenvalue.

    Raises:
        NotFinite: an entry is not finite.
    """
    if not np.isfinite(gram).all():
        raise NotFinite
    vectors: NDArray = np.linalg.eigh(gram)[1][:, ::-1]
    return vectors
