"""Kernels as heat maps, and distributions of fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dmft_figures import style
from dmft_figures.curves import kernel_times, layer_of, symbol
from dmft_figures.options import Options
from dmft_schema.kernels import kernel_layers, kernel_slice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

Arrays = Mapping[str, NDArray]


def heat_map(axes: Axes, kernel: NDArray, title: str, limit: float | None = None) -> None:
    """One kernel as an image, symmetric about zero; outputs beside points are flattened."""
    size = int(np.prod(kernel.shape) ** 0.5)
    square = kernel.reshape(size, size)
    limit = limit or float(np.abs(square).max()) or 1.0
    image = axes.imshow(square, cmap=style.DIVERGING, vmin=-limit, vmax=limit)
    axes.set(title=title, xticks=[], yticks=[])
    axes.figure.colorbar(image, ax=axes, shrink=0.8)


def kernels(figure: Figure | SubFigure, arrays: Arrays, options: Options) -> None:
    """Phi and G of each layer, and the NTK, at one time."""
    shown = [
        (name, layer) for name in ("phi", "g") for layer in _chosen(kernel_layers(arrays, name), options)
    ]
    rows = [[item for item in shown if item[0] == name] for name in ("phi", "g")]
    ntk = "ntk" in arrays and options.layer is None
    columns = max(map(len, rows), default=0) + ntk
    grid = figure.subplots(2, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_visible(False)
    for row, items in zip(grid, rows, strict=True):
        for axes, (name, layer) in zip(row, items, strict=False):
            axes.set_visible(True)
            heat_map(axes, kernel_slice(arrays, name, layer, options.t), symbol(name, layer))
    if ntk:
        grid[0, -1].set_visible(True)
        heat_map(grid[0, -1], kernel_slice(arrays, "ntk", None, options.t), symbol("ntk", None))
    figure.suptitle(rf"at $\eta t$ = {kernel_times(arrays)[options.t]:.3g}", fontsize="medium")


def _chosen(layers: list[int], options: Options) -> list[int]:
    return layers if options.layer is None else [layer_of(layers, options.layer)]


def fields(figure: Figure | SubFigure, arrays: Arrays, options: Options) -> None:
    """Densities over neurons of each layer's h and z, at all the times at which they were kept."""
    layers = sorted(int(name.rsplit("_", 1)[1]) for name in arrays if name.startswith("histogram_h_"))
    chosen = _chosen(layers, options)
    grid = figure.subplots(2, len(chosen), squeeze=False)
    times, steps = np.asarray(arrays["times"]), np.asarray(arrays["field_times"])
    for row, (field, letter) in zip(grid, (("h", "h"), ("z", "z")), strict=True):
        for axes, layer in zip(row, chosen, strict=True):
            density = arrays[f"histogram_{field}_{layer}"]
            edges = arrays[f"histogram_bins_{field}_{layer}"]
            for index, step in enumerate(steps):
                axes.stairs(
                    density[index], edges[index], label=rf"$\eta t$ = {times[min(step, len(times) - 1)]:.3g}"
                )
            axes.set(xlabel=rf"${letter}^{{{layer}}}$", yticks=[])
    grid[0, 0].legend(fontsize="small")
