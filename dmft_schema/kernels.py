"""How kernels and responses stand in a result's NPZ, and how to read any slice of them.

Keys: `kernel_times` [K] (steps), `phi_{l}`, `g_{l}` for l = 1..L, `ntk`, and `a_{l}`, `b_{l}` for l = 1..L-1.
Two-time kernels are dense, phi_{l} [K, P, K, P], while K * P is small (K * P * C for g); otherwise factors
phi_{l}_factor [K, P, k] with phi = factor factor^T. With C > 1 outputs g has the point axes
[P, C] in place of [P], and ntk is [K, P, C, P, C]. With one output ntk is [K, P, P]. Of networks
with positions phi and g are means over them, or between all of them (outputs.kernel_positions), with [P, A]
in place of [P] and [P, C, A] in place of [P, C].
Responses a_{l} [K, P, K, P (, C)] and b_{l} [K, P (, C), K, P] are dense; method linear leaves out the point
axis of the backward field, which is the same for all points: a_{l} [K, P, K (, C)], b_{l} [K (, C), K, P].
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def kernel_layers(arrays: Mapping[str, NDArray], name: str) -> list[int]:
    """Layers for which the two-time array `name` (phi, g, a or b) is present."""
    layers = {
        int(parts[1])
        for parts in (key.split("_") for key in arrays)
        if parts[0] == name and len(parts) > 1 and parts[1].isdigit()
    }
    return sorted(layers)


def _time_index(times: NDArray, index: int, axis: str) -> int:
    count = len(times)
    if not -count <= index < count:
        raise IndexError(f"{axis} = {index} is outside the {count} kernel times")
    return index % count


def kernel_slice(
    arrays: Mapping[str, NDArray],
    name: str,
    layer: int | None = None,
    t: int = -1,
    s: int | None = None,
) -> NDArray:
    """One kernel between two times.

    Args:
        arrays: a result's arrays (an open NPZ will do).
        name: phi, g, ntk, a or b.
        layer: 1..L for phi and g, 1..L-1 for a and b; negative counts from the last.
        t, s: indices into `kernel_times`; negative counts from the end; s defaults to t.
            The ntk is kept at equal times only.

    Returns:
        [P, P], or [P, C, P, C] for g and ntk with C > 1 outputs; responses without their time axes.

    Raises:
        KeyError: the kernel was not asked for, or there is no such layer.
        IndexError: a time outside the record.
        ValueError: the ntk at two different times.
    """
    if "kernel_times" not in arrays:
        raise KeyError("this result holds no kernels")
    times = arrays["kernel_times"]
    s = t if s is None else s
    row, column = _time_index(times, t, "t"), _time_index(times, s, "s")
    if name == "ntk":
        if "ntk" not in arrays:
            raise KeyError("this result holds no ntk; ask for it in outputs.kernels")
        if row != column:
            raise ValueError("the ntk is kept at equal times only: give t alone, or s = t")
        return np.asarray(arrays["ntk"][row])
    layers = kernel_layers(arrays, name)
    if not layers:
        asked = "outputs.responses" if name in ("a", "b") else "outputs.kernels"
        raise KeyError(f"this result holds no {name}; ask for it in {asked}")
    if layer is None:
        raise KeyError(f"{name} needs a layer, 1 to {layers[-1]}")
    chosen = layer if layer >= 0 else layers[-1] + 1 + layer
    if chosen not in layers:
        raise KeyError(f"layer {layer} is not among the layers of {name}, 1 to {layers[-1]}")
    if f"{name}_{chosen}" in arrays:
        dense = arrays[f"{name}_{chosen}"]
        second_time = {"a": 2, "b": dense.ndim - 2}.get(name, dense.ndim // 2)
        return np.asarray(dense[row].take(column, axis=second_time - 1))
    factor = arrays[f"{name}_{chosen}_factor"]
    left, right = factor[row], factor[column]
    return np.tensordot(left, right, axes=(-1, -1))


def two_time_kernel(arrays: Mapping[str, NDArray], name: str, layer: int) -> NDArray:
    """phi or g of one layer at all kernel times, [K, P, K, P]; multiplied out if stored as a factor."""
    if f"{name}_{layer}" in arrays:
        return np.asarray(arrays[f"{name}_{layer}"])
    factor = arrays[f"{name}_{layer}_factor"]
    return np.tensordot(factor, factor, axes=(-1, -1))
