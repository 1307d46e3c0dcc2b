"""Fields of sampled neurons at chosen times, and their distribution over all neurons."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmft_engine.model.fields import Fields

BINS = 64


class FieldRecord:
    """h, z, phi(h) and g of training points; arrays named in docs/results.md."""

    def __init__(self, steps: list[int], neurons: int, points: int) -> None:
        """Keep the first `neurons` of each layer, replica after replica, at the given steps."""
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
        by_point = field[:, :, : self._points].permute(2, 1, 0, 3).flatten(2)
        counts, edges = np.histogram(by_point.cpu().numpy(), bins=BINS, density=True)
        kept = {
            f"fields_{name}_{layer}": by_point[:, :, : self._neurons].to("cpu", torch.float32).numpy(),
            f"histogram_{name}_{layer}": counts,
            f"histogram_bins_{name}_{layer}": edges,
        }
        for key, value in kept.items():
            self._kept.setdefault(key, []).append(value)

    def arrays(self, scalar_output: bool) -> dict[str, NDArray]:
        """By name; samples [F, P, n], and [F, P, C, n] for z and g of several outputs."""
        arrays: dict[str, NDArray] = {"field_times": np.array(self._recorded)} if self._recorded else {}
        for key, values in self._kept.items():
            stacked = np.array(values)
            of_one_output = scalar_output or key.startswith(("fields_h", "fields_phi"))
            arrays[key] = stacked[:, :, 0] if stacked.ndim == 4 and of_one_output else stacked
        return arrays
