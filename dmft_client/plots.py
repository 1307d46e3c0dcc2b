"""Plots of results; needs matplotlib (the `plots` extra)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from dmft_client.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_loss(axes: Axes, results: Mapping[str, Result]) -> None:
    """Loss curves on a logarithmic scale, with bands of two standard errors where there are any."""
    for label, result in results.items():
        (line,) = axes.plot(result.times, result.loss, label=label)
        error = result.loss_standard_error
        if error is not None:
            low = np.maximum(result.loss - 2 * error, result.loss.min() * 1e-2)
            axes.fill_between(
                result.times, low, result.loss + 2 * error, alpha=0.25, color=line.get_color(), lw=0
            )
    axes.set(xlabel=r"learning time $\eta t$", ylabel="loss", yscale="log")
    axes.legend()


def plot_kernel(axes: Axes, kernel: np.ndarray, title: str, limit: float | None = None) -> None:
    """One [P, P] kernel as an image, symmetric about zero."""
    limit = limit or float(np.abs(kernel).max())
    image = axes.imshow(kernel, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes.set(title=title, xticks=[], yticks=[])
    axes.figure.colorbar(image, ax=axes, shrink=0.8)


def compare_figure(results: Mapping[str, Result], layer: int) -> Figure:
    """Loss curves of several results above their final Phi^layer."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(results), 7.5), layout="constrained")
    grid = figure.add_gridspec(2, len(results))
    plot_loss(figure.add_subplot(grid[0, :]), results)
    kernels = {label: result.phi(layer) for label, result in results.items()}
    limit = max(float(np.abs(kernel).max()) for kernel in kernels.values())
    for column, (label, kernel) in enumerate(kernels.items()):
        axes = figure.add_subplot(grid[1, column])
        plot_kernel(axes, kernel, rf"final $\Phi^{layer}$, {label}", limit)
    return figure
