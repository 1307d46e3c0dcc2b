"""Pictures of results, as the API draws them (dmft_figures); needs matplotlib, the `plots` extra."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dmft_client.result import Result
from dmft_figures import Options, curves, draw, images

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot(results: Result | Mapping[str, Result], kind: str = "loss", **options: Any) -> Figure:
    """One kind of picture of a result, or of several by their labels.

    Args:
        results: see above.
        kind: loss, kernels, fields, alignment, spectrum or summary.
        options: of dmft_figures.Options: width and height in inches, layer, t, scale, theme.

    Raises:
        KeyError: there is no such kind.
        dmft_figures.NothingToDraw: the results hold nothing of it.
        pydantic.ValidationError: a wrong option.
    """
    named = {results.diagnostics.method: results} if isinstance(results, Result) else results
    return draw(kind, {label: result.arrays for label, result in named.items()}, Options(**options))


def plot_loss(axes: Axes, results: Mapping[str, Result]) -> None:
    """Loss curves on a logarithmic scale, with bands of what their errors may come to."""
    curves.loss(axes, {label: result.arrays for label, result in results.items()}, Options())


def plot_kernel(axes: Axes, kernel: np.ndarray, title: str, limit: float | None = None) -> None:
    """One [P, P] kernel as an image, symmetric about zero."""
    images.heat_map(axes, kernel, title, limit)


def compare_figure(results: Mapping[str, Result], layer: int) -> Figure:
    """Loss curves of several results above their final Phi^layer."""
    return plot(results, "summary", layer=layer, width=min(4.0 * len(results), 20.0), height=7.5)
