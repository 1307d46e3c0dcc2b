"""What can be computed with: kernels that are positive semidefinite, and data of a size that floats hold."""

from __future__ import annotations

import numpy as np

from dmft_schema import limits
from dmft_schema.arrays import FloatArray


def check_positive_semidefinite(kernel: FloatArray, name: str) -> None:
    """Refuse a kernel that is not symmetric positive semidefinite, rounding in float32 aside.

    Each entry of a Gram matrix that was computed in float32 is off by a few units of its last place; P such
    errors in a row move an eigenvalue by at most their sum (Weyl's inequality).

    Args:
        kernel: [P, P].
        name: what to call it in the error.

    Raises:
        ValueError: naming the entry or eigenvalue, the limit it breaks and the likely cause.
    """
    if kernel.shape[0] != kernel.shape[1]:
        raise ValueError(f"{name} must be square; got shape {list(kernel.shape)}")
    largest = float(np.abs(kernel).max())
    if largest == 0.0:
        raise ValueError(f"{name} must not be zero everywhere")
    _check_size(largest, f"the largest entry of {name}", limits.MIN_KERNEL_SCALE)
    # In units of its largest entry, so that nothing below overflows or underflows.
    kernel = kernel / largest
    asymmetry, allowed = np.abs(kernel - kernel.T), limits.KERNEL_SYMMETRY_TOLERANCE * max(4, len(kernel))
    if asymmetry.max() > allowed:
        row, column = (int(i) for i in np.unravel_index(asymmetry.argmax(), asymmetry.shape))
        raise ValueError(
            f"{name} must be symmetric: entries [{row}, {column}] and [{column}, {row}] differ by "
            f"{asymmetry.max() * largest:.3g} (limit: {allowed * largest:.3g}, which is {allowed:.2g} of the "
            "largest entry, what rounding in float32 explains)"
        )
    eigenvalues = np.linalg.eigvalsh((kernel + kernel.T) / 2)
    tolerance = limits.KERNEL_ROUNDING * max(4, len(kernel))
    smallest, top = float(eigenvalues[0]), float(abs(eigenvalues[-1]))
    if smallest < -tolerance * top:
        raise ValueError(
            f"{name} must be positive semidefinite: its smallest eigenvalue is {smallest * largest:.3g} "
            f"(limit: {-tolerance * top * largest:.3g}, which is -{tolerance:.2g} of the largest eigenvalue, "
            f"what rounding in float32 explains). {_likely_cause(smallest / top)}"
        )


def _likely_cause(ratio: float) -> str:
    if ratio > -1e-2:
        return (
            "The likely cause is rounding coarser than that: inner products in half precision or TF32, or "
            "entries written with few digits. Compute the kernel as X @ X.T / D in float64, or send inputs"
        )
    return (
        "The likely cause is that its entries are no inner products, but for instance distances, "
        "similarities or correlations over different samples: a kernel is X @ X.T / D. Or send inputs"
    )


def clip_to_semidefinite(kernel: FloatArray) -> tuple[FloatArray, float | None]:
    """The symmetric part of an accepted kernel, without the negative eigenvalues that rounding left in it.

    Returns:
        The kernel, and its most negative eigenvalue relative to the largest if that was set to zero (below
        -limits.KERNEL_EIGENVALUE_TOLERANCE), else None.
    """
    kernel = (kernel + kernel.T) / 2
    scale = np.abs(kernel).max()
    values = np.linalg.eigvalsh(kernel / scale)
    ratio = float(values[0] / values[-1])
    if ratio >= -limits.KERNEL_EIGENVALUE_TOLERANCE:
        return kernel, None
    values, vectors = np.linalg.eigh(kernel / scale)
    # From the factor, whose product with itself is symmetric and semidefinite but for rounding in float64.
    factor = vectors * np.sqrt(np.maximum(values, 0.0) * scale)
    return factor @ factor.T, ratio


def check_scale_of_inputs(inputs: FloatArray, name: str, smallest: float = limits.MIN_KERNEL_SCALE) -> None:
    """Refuse inputs whose kernel x . x / D is out of range, or zero unless `smallest` is 0.

    Raises:
        ValueError: naming the point, the value and the limit.
    """
    inputs = inputs.reshape(len(inputs), -1)
    largest = float(np.abs(inputs).max())
    if largest == 0.0:
        if smallest == 0.0:
            return
        raise ValueError(f"{name} must not be zero everywhere")
    point = int(np.abs(inputs).max(axis=1).argmax())
    with np.errstate(over="ignore", under="ignore"):
        norms = np.square(inputs).mean(axis=1)
    point = int(norms.argmax()) if norms.max() > 0 else point
    what = f"{name} has entries up to {largest:.3g}; the largest x.x/D, of point {point},"
    _check_size(float(norms[point]), what, smallest)


def check_scale_of_targets(targets: FloatArray, name: str) -> None:
    """Refuse targets whose squares are out of range.

    Raises:
        ValueError: naming the entry, the value and the limit.
    """
    where = np.unravel_index(np.abs(targets).argmax(), targets.shape)
    entry = "[" + ", ".join(str(int(i)) for i in where) + "]"
    _check_size(float(abs(targets[where])), f"entry {entry} of {name}", 0.0, limits.MAX_TARGET)


def _check_size(value: float, what: str, smallest: float, largest: float = limits.MAX_KERNEL_SCALE) -> None:
    if not value <= largest:
        raise ValueError(f"{what} is {value:.3g} (limit: {largest:g}); scale the data down")
    if value < smallest:
        raise ValueError(f"{what} is {value:.3g} (limit: at least {smallest:g}); scale the data up")
