"""Numbers read off kernels (theory section 6)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dmft_schema.kernels import kernel_layers, kernel_slice


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
