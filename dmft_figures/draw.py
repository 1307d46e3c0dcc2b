"""The kinds of pictures, each over its module's functions."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from dmft_figures import curves, images, style
from dmft_figures.options import Options
from dmft_schema.kernels import kernel_layers, kernel_slice

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

Arrays = Mapping[str, NDArray]


class NothingToDraw(LookupError):
    """The results hold nothing that this kind of picture shows, or not at the layer or time asked for."""


def _loss(figure: Figure, results: Mapping[str, Arrays], options: Options) -> None:
    curves.loss(figure.add_subplot(), results, options)


def _alignment(figure: Figure, results: Mapping[str, Arrays], options: Options) -> None:
    curves.movement(figure.add_subplot(), results, options)


def _spectrum(figure: Figure, results: Mapping[str, Arrays], options: Options) -> None:
    curves.spectrum(figure.add_subplot(), results, options)


def _kernels(figure: Figure | SubFigure, results: Mapping[str, Arrays], options: Options) -> None:
    """One result by layers; several side by side, at one layer, in one scale."""
    if len(results) == 1:
        images.kernels(figure, next(iter(results.values())), options)
        return
    slices = {}
    for label, arrays in results.items():
        layer = curves.layer_of(kernel_layers(arrays, "phi"), -1 if options.layer is None else options.layer)
        slices[label] = layer, kernel_slice(arrays, "phi", layer, options.t)
    limit = max(float(abs(kernel).max()) for _, kernel in slices.values())
    panels: Any = figure.subplots(1, len(slices), squeeze=False)
    for axes, (label, (layer, kernel)) in zip(panels[0], slices.items(), strict=True):
        images.heat_map(axes, kernel, f"{curves.symbol('phi', layer)}, {label}", limit)


def _fields(figure: Figure, results: Mapping[str, Arrays], options: Options) -> None:
    images.fields(figure, next(iter(results.values())), options)


def _summary(figure: Figure, results: Mapping[str, Arrays], options: Options) -> None:
    """The loss above, below it the last kernels and how they moved, if there are any."""
    if not any(kernel_layers(arrays, "phi") for arrays in results.values()):
        _loss(figure, results, options)
        return
    halves: Any = figure.subfigures(2, 1)
    above, below = halves
    curves.loss(above.add_subplot(), results, options)
    if len(results) > 1:
        _kernels(below, results, options)
        return
    (arrays,) = results.values()
    layer = curves.layer_of(kernel_layers(arrays, "phi"), -1 if options.layer is None else options.layer)
    times = curves.kernel_times(arrays)
    slices = {float(times[t]): kernel_slice(arrays, "phi", layer, t) for t in (0, options.t)}
    limit = max(float(abs(kernel).max()) for kernel in slices.values())
    panels: Any = below.subplots(1, len(slices) + 1, squeeze=False)
    for axes, (time, kernel) in zip(panels[0], slices.items(), strict=False):
        images.heat_map(axes, kernel, rf"{curves.symbol('phi', layer)} at $\eta t$ = {time:.3g}", limit)
    curves.movement(panels[0, -1], results, options)


KINDS: dict[str, Callable[[Figure, Mapping[str, Arrays], Options], None]] = {
    "loss": _loss,
    "kernels": _kernels,
    "fields": _fields,
    "alignment": _alignment,
    "spectrum": _spectrum,
    "summary": _summary,
}

_NEEDS = {
    "kernels": ("kernel_times", "outputs.kernels"),
    "alignment": ("kernel_times", "outputs.kernels"),
    "spectrum": ("kernel_times", "outputs.kernels"),
    "fields": ("field_times", "outputs.field_times"),
}


_DRAWING = threading.RLock()
"""matplotlib's settings belong to the process: one picture at a time."""


def draw(kind: str, results: Mapping[str, Arrays], options: Options | None = None) -> Figure:
    """A picture of one result or several, by their labels.

    Raises:
        NothingToDraw: see there; the message says what to ask a solve for.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    options = options or Options()
    if kind in _NEEDS:
        array, asked = _NEEDS[kind]
        for label, arrays in results.items():
            if array not in arrays:
                raise NothingToDraw(f"{label} holds nothing to draw {kind} from; ask for {asked}")
    with _DRAWING, rc_context(style.of_theme(options.theme)):
        figure = Figure(figsize=(options.width, options.height), dpi=options.dpi, layout="constrained")
        try:
            KINDS[kind](figure, results, options)
        except (KeyError, IndexError) as error:
            raise NothingToDraw(str(error.args[0])) from None
    return figure


def render(kind: str, results: Mapping[str, Arrays], format: str, options: Options | None = None) -> bytes:
    """The same as the bytes of a PNG, SVG or PDF; the same picture twice is the same bytes.

    Raises:
        NothingToDraw: see draw.
    """
    from matplotlib import rc_context

    options = options or Options()
    undated = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[format]
    buffer = io.BytesIO()
    with _DRAWING, rc_context(style.of_theme(options.theme)):
        figure = draw(kind, results, options)
        figure.savefig(buffer, format=format, dpi=options.dpi, metadata=undated)
    return buffer.getvalue()
