"""Numbers read off kernels (theory section 6), for summaries and comparisons alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

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
    one, other = _unit(first), _unit(second)
    return _ratio(np.vdot(one, other), np.linalg.norm(one) * np.linalg.norm(other))


def kernel_target_alignment(kernel: NDArray, targets: NDArray) -> float:
    """y^T K y / (|y|^2 |K|_F), the alignment of K with y y^T (paper, figure 5c).

    Args:
        kernel: [P, P], or [P, C, P, C].
        targets: [P], or [P, C].
    """
    y = targets.ravel()
    return alignment(kernel.astype(np.float64).reshape(y.size, y.size), np.outer(y, y))


def effective_dimension(kernel: NDArray) -> float:
    """(tr K)^2 / tr K^2 of a kernel [P, P]: 1 if it has rank one, P if it is the identity.

    One between positions of points, [P, A, P, A], counts as one of P A points.
    """
    rows = math.isqrt(kernel.size)
    scaled = _unit(kernel).reshape(rows, rows)
    return _ratio(np.trace(scaled) ** 2, np.vdot(scaled, scaled))


def kernel_movement(arrays: Mapping[str, NDArray], depth: int) -> list[float] | None:
    """|Phi^l(end) - Phi^l(start)|_F / |Phi^l(start)|_F at equal times for l = 1..depth.

    Start and end are the first and last kernel times. None if phi was not recorded.
    """
    if kernel_layers(arrays, "phi") != list(range(1, depth + 1)):
        return None
    movement = []
    for layer in range(1, depth + 1):
        start = kernel_slice(arrays, "phi", layer, 0).astype(np.float64)
        change = kernel_slice(arrays, "phi", layer, -1) - start
        scale = _scale(start)
        start, change = start / scale, change / scale
        movement.append(_ratio(np.linalg.norm(change), np.linalg.norm(start)))
    return movement


def _scale(kernel: NDArray) -> float:
    """Largest entry, or 1 of a kernel that is zero."""
    return float(np.abs(kernel).max(initial=0.0)) or 1.0


def _unit(kernel: NDArray) -> NDArray:
    """In float64 with a largest entry of 1, so that squares neither overflow nor vanish."""
    return kernel.astype(np.float64) / _scale(kernel)


def _ratio(part: Any, whole: Any) -> float:
    """NaN of a kernel that is zero."""
    return float(part / whole) if whole else math.nan


def finite(value: float) -> float | None:
    """The value, or None if it is not a finite number, as of a kernel that is zero."""
    return value if math.isfinite(value) else None


def all_finite(values: list[float] | None) -> list[float] | None:
    """The values, or None if one of them is not a finite number."""
    return values if values is not None and all(map(math.isfinite, values)) else None
