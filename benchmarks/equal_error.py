"""Time to one error, in the loss and in the kernels: dmft, alternating, and an ensemble of dense networks.

Sampling errors fall as one over the root of the samples, so what `alternating` would take to reach dmft's
error follows from one run of it. A dense network of width N is off by b / N, and one network's loss scatters
by s / sqrt(N). Both are measured at one width; what it would take to reach dmft's error e follows: a width
N' = N b_N / (e / 2), networks enough that the mean of their scatter is e / 2, each at a cost growing as N'^2.
(It is computed and not run because it would take hours.)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.problem import problem, timed
from dmft_engine import Result
from dmft_schema import kernel_slice

WIDTH = 1000
MEMBERS = 8
STEPS = 100

Relative = Callable[[Result, Result | None], float]
"""(of what, minus what or its own error bar) -> size, relative to the truth."""


def main() -> None:
    timed(problem(5, name="dmft", samples=1024, replicas=2))
    dmft, dmft_seconds = timed(problem(STEPS, name="dmft", samples=4096))
    iterated, iterated_seconds = timed(problem(STEPS, name="alternating", samples=2048))
    dense, seconds = timed(
        problem(STEPS, name="finite_width", width=WIDTH, ensemble=MEMBERS, dtype="float32")
    )
    precise, _ = timed(problem(STEPS, name="dmft", samples=32768, tolerance=5e-3, seed=1))
    network_seconds = seconds / MEMBERS
    iterations = len(iterated.arrays["iteration_kernel_change"])
    print(
        f"dmft, 4096 samples: {dmft_seconds:.2f} s; alternating, 2048 samples, {iterations} iterations: "
        f"{iterated_seconds:.1f} s; dense, width {WIDTH}: {network_seconds:.2f} s a network"
    )
    for label, relative in (("loss", _loss(precise)), ("final Phi^3", _kernel(precise))):
        error = relative(dmft, None)
        sampling = (relative(iterated, None) / error) ** 2 * iterated_seconds
        bias, scatter = relative(dense, precise), relative(dense, None) * MEMBERS**0.5
        width = max(WIDTH, WIDTH * bias / (error / 2))
        members = max(1.0, (scatter / (error / 2)) ** 2 * WIDTH / width)
        training = network_seconds * (width / WIDTH) ** 2 * members
        print(f"{label}: dmft is off by {error:.2g} (its own estimate)")
        print(
            f"  alternating, by {relative(iterated, None):.2g}: {sampling:.0f} s to the same error, "
            f"{sampling / dmft_seconds:.0f} times dmft's"
        )
        print(
            f"  dense, width {WIDTH}, by {bias:.2g}, one network scattering by {scatter:.2g}: {members:.0f} "
            f"networks of width {width:.0f}, {training:.0f} s, {training / dmft_seconds:.0f} times dmft's"
        )


def _loss(precise: Result) -> Relative:
    """Root mean squares over the second half of training, relative to the loss."""
    half = slice(STEPS // 2, None)
    truth = precise.arrays["loss"][half]

    def relative(result: Result, other: Result | None) -> float:
        arrays = result.arrays
        size = arrays["loss_standard_error"] if other is None else arrays["loss"] - other.arrays["loss"]
        return float(np.sqrt(np.mean((size[half] / truth) ** 2)))

    return relative


def _kernel(precise: Result) -> Relative:
    """Frobenius norms of the final Phi^3, relative to its own."""
    truth = kernel_slice(precise.arrays, "phi", 3)

    def relative(result: Result, other: Result | None) -> float:
        if other is None:
            size = result.arrays["phi_3_standard_error"][-1]
        else:
            size = kernel_slice(result.arrays, "phi", 3) - kernel_slice(other.arrays, "phi", 3)
        return float(np.linalg.norm(size) / np.linalg.norm(truth))

    return relative
