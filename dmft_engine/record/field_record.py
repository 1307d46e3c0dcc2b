"""Fields of sampled neurons at chosen times, and their distribution over all neurons."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dmft_engine.errors import NotFinite
from dmft_engine.model.fields import Fields

BINS = 64
NARROW = 1e-4
"""Range of a field, over its largest value, below which the histogram is as wide as that."""


class FieldRecord:
    """h, z, phi(h) and g of training points; arrays named in docs/results.md."""

    def __init__(self, steps: list[int], neurons: int, points: int, merged: bool = False) -> None:
        """Keep the first `neurons` of each layer, replica after replica, at the given steps.

        `merged`: with other records; then all neurons are kept, since histograms need the range of all.
        """
        self._whole: dict[tuple[str, int], list[NDArray]] = {}
        self._merged = merged
        self._steps = steps
        self._neurons = neurons
        self._points = points
        self._recorded: list[int] = []
        self._kept: dict[str, list[NDArray]] = {}

    def wants(self, step: int) -> bool:
        return step in self._steps

    def record(self, step: int, fields: Fields) -> None:
        """Keep the fields of one time."""
        self._recorded.append(step)
        for layer in range(len(fields.h)):
            self._keep("h", layer + 1, fields.h[layer][:, None])
            self._keep("phi", layer + 1, fields.phi[layer][:, None])
            self._keep("g", layer + 1, fields.g[layer])
            self._keep("z", layer + 1, fields.z[layer])

    def _keep(self, name: str, layer: int, field: Tensor) -> None:
        """`field` is [R, C or 1, A, S]."""
        # [P, C, R S]: the neurons of one replica after another.
        by_point = field[:, :, : self._points].permute(2, 1, 0, 3).flatten(2).cpu().numpy()
        if self._merged:
            self._whole.setdefault((name, layer), []).append(by_point)
        else:
            self._take(name, layer, by_point)

    def _take(self, name: str, layer: int, by_point: NDArray) -> None:
        counts, edges = _histogram(by_point)
        kept = {
            f"fields_{name}_{layer}": _single(by_point[:, :, : self._neurons]),
            f"histogram_{name}_{layer}": counts,
            f"histogram_bins_{name}_{layer}": edges,
        }
        for key, value in kept.items():
            self._kept.setdefault(key, []).append(value)

    @staticmethod
    def arrays(records: list[FieldRecord], scalar_output: bool) -> dict[str, NDArray]:
        """Of records of the same steps, one chunk of replicas each, as of one record of all of them."""
        first = records[0]
        for (name, layer), kept in first._whole.items():
            for time in range(len(kept)):
                parts = [record._whole[name, layer][time] for record in records]
                first._take(name, layer, np.concatenate(parts, axis=-1))
        first._whole.clear()
        return first._arrays(scalar_output)

    def _arrays(self, scalar_output: bool) -> dict[str, NDArray]:
        """By name; samples [F, P, n], and [F, P, C, n] for z and g of several outputs."""
        arrays: dict[str, NDArray] = {"field_times": np.array(self._recorded)} if self._recorded else {}
        for key, values in self._kept.items():
            stacked = np.array(values)
            of_one_output = scalar_output or key.startswith(("fields_h", "fields_phi"))
            arrays[key] = stacked[:, :, 0] if stacked.ndim == 4 and of_one_output else stacked
        return arrays


def _histogram(values: NDArray) -> tuple[NDArray, NDArray]:
    """Density and bin edges.

    Raises:
        NotFinite: a value is not finite.
    """
    if not np.isfinite(values).all():
        raise NotFinite
    low, high = float(values.min()), float(values.max())
    largest = max(abs(low), abs(high))
    if 0 < high - low < NARROW * largest:
        # Bins narrower than the digits of the values cannot be told apart.
        middle, half = (low + high) / 2, NARROW * largest
        return np.histogram(
            values.astype(np.float64), bins=BINS, range=(middle - half, middle + half), density=True
        )
    return np.histogram(values, bins=BINS, density=True)


def _single(values: NDArray) -> NDArray:
    """In float32, or as they are if that cannot hold them."""
    held = not values.size or float(np.abs(values).max()) <= float(np.finfo(np.float32).max)
    return values.astype(np.float32) if held else values
