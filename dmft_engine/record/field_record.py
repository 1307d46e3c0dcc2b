"""Fields of sampled neurons at chosen times, and their distribution over all neurons."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmft_engine.errors import NotFinite
from dmft_engine.model.fields import Fields
from dmft_engine.state import Stateful

BINS = 64
NARROW = 1e-4
"""Range of a field, over its largest value, below which the histogram is as wide as that."""


class FieldRecord(Stateful):
    """h, z, phi(h) and g of training points; arrays named in docs/results.md."""

    kept: ClassVar[tuple[str, ...]] = ("_recorded", "_whole", "_arrays")

    def __init__(self, steps: list[int], neurons: int, points: int, merged: bool = False) -> None:
        """Keep the first `neurons` of each layer, replica after replica, at the given steps.

        `merged`: with other records; then all neurons are kept, since histograms need the range of all.
        """
        self._merged = merged
        self._steps = steps
        self._neurons = neurons
        self._points = points
        self._recorded: list[int] = []
        self._whole: dict[str, list[Tensor]] = {}
        """[P, C (, A), R S] at each time, by name and layer: of a record that is one of several."""
        self._arrays: dict[str, list[Tensor]] = {}
        """What is made of them at each time, by name: of a record that stands alone."""

    def wants(self, step: int) -> bool:
        return step in self._steps

    def record(self, step: int, fields: Fields) -> None:
        """Keep the fields of one time.

        Raises:
            NotFinite: a value is not finite.
        """
        by_point = {}
        points = fields.output.shape[1]
        for layer in range(len(fields.h)):
            for name, field in (
                ("h", fields.h[layer][:, None]),
                ("phi", fields.phi[layer][:, None]),
                ("g", fields.g[layer]),
                ("z", fields.z[layer]),
            ):
                # [R, C or 1, P A, S] -> [P, C (, A), R S]: the neurons of one replica after another.
                by_position = field.unflatten(2, (points, -1))[:, :, : self._points]
                own = by_position.permute(2, 1, 3, 0, 4).flatten(3)
                by_point[f"{name}_{layer + 1}"] = (own if own.shape[2] > 1 else own[:, :, 0]).cpu()
        if self._merged:
            kept, new = self._whole, by_point
        else:
            kept, new = self._arrays, self._tensors(by_point)
        self._recorded.append(step)
        for name, value in new.items():
            kept.setdefault(name, []).append(value)

    def _tensors(self, by_point: dict[str, Tensor]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, values in by_point.items():
            found |= {key: torch.from_numpy(made) for key, made in self._made(name, values.numpy()).items()}
        return found

    def _made(self, name: str, by_point: NDArray) -> dict[str, NDArray]:
        counts, edges = _histogram(by_point)
        return {
            f"fields_{name}": _single(by_point[..., : self._neurons]),
            f"histogram_{name}": counts,
            f"histogram_bins_{name}": edges,
        }

    @staticmethod
    def arrays(records: list[FieldRecord], scalar_output: bool) -> dict[str, NDArray]:
        """Of records of the same steps, one chunk of replicas each, as of one record of all of them.

        By name; samples [F, P, n], and [F, P, C, n] for z and g of several outputs; [F, P (, C), A, n] of A
        positions.
        """
        first = records[0]
        found = {key: [value.numpy() for value in values] for key, values in first._arrays.items()}
        for name, kept in first._whole.items():
            for time in range(len(kept)):
                whole = np.concatenate([record._whole[name][time].numpy() for record in records], axis=-1)
                for key, value in first._made(name, whole).items():
                    found.setdefault(key, []).append(value)
        arrays: dict[str, NDArray] = {"field_times": np.array(first._recorded)} if first._recorded else {}
        for key, values in found.items():
            stacked = np.array(values)
            of_one_output = scalar_output or key.startswith(("fields_h", "fields_phi"))
            arrays[key] = stacked[:, :, 0] if stacked.ndim > 3 and of_one_output else stacked
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
