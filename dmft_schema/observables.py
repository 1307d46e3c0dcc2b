"""Numbers read off kernels (theory section 6), for summaries and comparisons alike."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dmft_schema.kernels import kernel_layers, kernel_slice


def alignment(first: NDArray, second: NDArray) -> float:
    """A(K1, K2) = <K1, K2>_F / (|K1|_F |K2|_F) over all entries (theory section 6).

    Raises:
        ValueError: the shapes differ.
    """
    if first.shape != second.shape:
        raise ValueError(f"alignment needs kernels of one shape; got {first.shape} and {second.shape}")
    return float(np.vdot(first, second) / (np.linalg.norm(first) * np.linalg.norm(second)))


def kernel_target_alignment(kernel: NDArray, targets: NDArray) -> float:
    """y^T K y / (|y|^2 |K|_F), the alignment of K with y y^T (paper, figure 5c).

    Args:
        kernel: [P, P], or [P, C, P, C].
        targets: [P], or [P, C].
    """
    y = targets.ravel()
    return alignment(kernel.astype(np.float64).reshape(y.size, y.size), np.outer(y, y))


def effective_dimension(kernel: NDArray) -> float:
    """(tr K)^2 / tr K^2 of a kernel [P, P]: 1 if it has rank one, P if it is the identity."""
    return float(np.trace(kernel) ** 2 / np.vdot(kernel, kernel))


def kernel_movement(arrays: Mapping[str, NDArray], depth: int) -> list[float] | None:
    """|Phi^l(end) - Phi^l(start)|_F / |Phi^l(start)|_F at equal times for l = 1..depth.

    Start and end are the first and last kernel times. None if phi was not recorded.
    """
    if kernel_layers(arrays, "phi") != list(range(1, depth + 1)):
        return None
    movement = []
    for layer in range(1, depth + 1):
        start = kernel_slice(arrays, "phi", layer, 0)
        change = kernel_slice(arrays, "phi", layer, -1) - start
        movement.append(float(np.linalg.norm(change) / np.linalg.norm(start)))
    return movement
