"""Curves against time: losses with their errors, alignment, movement, spectra."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dmft_figures.options import Options
from dmft_schema.kernels import kernel_layers, kernel_slice
from dmft_schema.observables import alignment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Arrays = Mapping[str, NDArray]

LEARNING_TIME = r"learning time $\eta t$"
_EIGENVALUES = 8
"""Eigenvalues drawn of each kernel."""


def loss(axes: Axes, results: Mapping[str, Arrays], options: Options) -> None:
    """Training losses, test losses dashed, in bands of two standard errors and the truncation error."""
    for label, arrays in results.items():
        for name, style in (("loss", "-"), ("test_loss", "--")):
            if name not in arrays:
                continue
            times, values = arrays["times"], arrays[name]
            (line,) = axes.plot(times, values, style, label=label if name == "loss" else f"{label}, test")
            if name == "test_loss":
                line.set_color(axes.lines[-2].get_color())
            band = _band(arrays, name)
            if band is not None:
                floor = values[values > 0].min(initial=1.0) * 1e-2 if options.scale == "log" else -np.inf
                axes.fill_between(
                    times,
                    np.maximum(values - band, floor),
                    values + band,
                    alpha=0.25,
                    color=line.get_color(),
                    lw=0,
                )
    positive = all((arrays["loss"] > 0).any() for arrays in results.values())
    axes.set(xlabel=LEARNING_TIME, ylabel="loss", yscale=options.scale if positive else "linear")
    axes.legend()


def _band(arrays: Arrays, name: str) -> NDArray | None:
    """Half the width of the band about a loss: what each of its errors may come to."""
    error, truncation = arrays.get(f"{name}_standard_error"), arrays.get(f"{name}_truncation_error")
    if error is None and truncation is None:
        return None
    band = np.zeros_like(arrays[name], dtype=np.float64)
    if error is not None:
        band += 2 * error
    if truncation is not None:
        band += truncation
    return band


def movement(axes: Axes, results: Mapping[str, Arrays], options: Options) -> None:
    """Alignment of each kernel with what it was at the first kernel time: 1 while nothing is learned."""
    for label, arrays in results.items():
        times = kernel_times(arrays)
        for name, layer in _equal_time_kernels(arrays, options):
            first = kernel_slice(arrays, name, layer, 0)
            values = [alignment(first, kernel_slice(arrays, name, layer, t)) for t in range(len(times))]
            axes.plot(times, values, marker=".", label=_label(name, layer, label, results))
    axes.set(xlabel=LEARNING_TIME, ylabel="alignment with first", ylim=(None, 1.02))
    axes.legend()


def spectrum(axes: Axes, results: Mapping[str, Arrays], options: Options) -> None:
    """The largest eigenvalues of one kernel of one result against time: the NTK, or Phi of a layer."""
    ((_, arrays),) = list(results.items())[:1]
    times = kernel_times(arrays)
    kernels = _equal_time_kernels(arrays, options)
    name, layer = ("ntk", None) if options.layer is None and ("ntk", None) in kernels else kernels[0]
    slices = [kernel_slice(arrays, name, layer, t) for t in range(len(times))]
    size = int(np.prod(slices[0].shape) ** 0.5)
    eigenvalues = np.array([np.linalg.eigvalsh(kernel.reshape(size, size))[::-1] for kernel in slices])
    for index in range(min(_EIGENVALUES, size)):
        axes.plot(times, eigenvalues[:, index], marker=".", label=rf"$\lambda_{index + 1}$")
    positive = (eigenvalues[:, 0] > 0).all()
    axes.set(
        xlabel=LEARNING_TIME,
        ylabel=f"eigenvalues of {symbol(name, layer)}",
        yscale=options.scale if positive else "linear",
    )
    axes.legend(ncols=2)


def kernel_times(arrays: Arrays) -> NDArray:
    """Learning times at which kernels were kept."""
    steps = np.asarray(arrays["kernel_times"])
    times = np.asarray(arrays["times"])
    return times[np.minimum(steps, len(times) - 1)]


def symbol(name: str, layer: int | None) -> str:
    """As in the theory."""
    letter = {"phi": r"\Phi", "g": "G", "ntk": r"K^{\mathrm{NTK}}"}[name]
    return f"${letter}$" if layer is None else rf"${letter}^{{{layer}}}$"


def _equal_time_kernels(arrays: Arrays, options: Options) -> list[tuple[str, int | None]]:
    layers = kernel_layers(arrays, "phi")
    chosen = layers if options.layer is None else [layer_of(layers, options.layer)]
    found: list[tuple[str, int | None]] = [("phi", layer) for layer in chosen]
    return [*found, ("ntk", None)] if "ntk" in arrays and options.layer is None else found


def layer_of(layers: list[int], layer: int) -> int:
    """The layer meant; negative counts from the last.

    Raises:
        KeyError: there is no such layer.
    """
    chosen = layer if layer >= 0 or not layers else layers[-1] + 1 + layer
    if chosen not in layers:
        raise KeyError(f"layer {layer} is not among those kept: {', '.join(map(str, layers)) or 'none'}")
    return chosen


def _label(name: str, layer: int | None, label: str, results: Mapping[str, Arrays]) -> str:
    return symbol(name, layer) if len(results) == 1 else f"{symbol(name, layer)}, {label}"
