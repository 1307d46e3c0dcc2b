"""Two results side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmft_client.result import Result
from dmft_schema.kernels import kernel_layers, two_time_kernel
from dmft_schema.observables import alignment


@dataclass(frozen=True)
class Comparison:
    """How far two results are apart.

    Attributes:
        loss_difference: [T] first minus second.
        loss_standard_error: [T] of the difference; None if neither has an error.
        phi_alignment, g_alignment: by layer, over all entries and kernel times (paper, figure 1f).
        ntk_alignment: over all kernel times; None unless both have the ntk.
    """

    loss_difference: NDArray
    loss_standard_error: NDArray | None
    phi_alignment: list[float]
    g_alignment: list[float]
    ntk_alignment: float | None


def compare(first: Result, second: Result) -> Comparison:
    """Compare two results of the same data, steps and kernel times.

    Raises:
        ValueError: they differ in one of these.
    """
    if first.predictions.shape != second.predictions.shape or not np.allclose(first.times, second.times):
        raise ValueError(
            "results can be compared at the same times and points only; got predictions of shapes "
            f"{first.predictions.shape} and {second.predictions.shape}"
        )
    errors = [r.loss_standard_error for r in (first, second) if r.loss_standard_error is not None]
    return Comparison(
        loss_difference=first.loss - second.loss,
        loss_standard_error=np.sqrt(sum(e**2 for e in errors)) if errors else None,
        phi_alignment=_by_layer(first, second, "phi"),
        g_alignment=_by_layer(first, second, "g"),
        ntk_alignment=(
            alignment(first.arrays["ntk"], second.arrays["ntk"])
            if "ntk" in first.arrays and "ntk" in second.arrays
            else None
        ),
    )


def _by_layer(first: Result, second: Result, name: str) -> list[float]:
    layers = kernel_layers(first.arrays, name)
    if layers != kernel_layers(second.arrays, name):
        return []
    if layers and not np.array_equal(first.kernel_times, second.kernel_times):
        raise ValueError("results can be compared at the same kernel times only")
    return [
        alignment(two_time_kernel(first.arrays, name, layer), two_time_kernel(second.arrays, name, layer))
        for layer in layers
    ]
