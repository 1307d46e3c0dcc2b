"""dmft against dense networks of equal accuracy, in the loss and in the kernels.

A dense network of width N is off by b / N, and one network's loss scatters by s / sqrt(N). Both are
measured at one width; what it would take to reach dmft's error e follows: a width N' = N b_N / (e / 2),
networks enough that the mean of their scatter is e / 2, each at a cost growing as N'^2. (It is computed
and not run because it would take hours.)
"""

from __future__ import annotations

import numpy as np

from benchmarks.problem import problem, timed
from dmft_engine import Result
from dmft_schema import kernel_slice

WIDTH = 1000
MEMBERS = 8
STEPS = 100


def main() -> None:
    timed(problem(5, name="dmft", samples=1024, replicas=2))
    dmft, dmft_seconds = timed(problem(STEPS, name="dmft", samples=4096))
    dense, dense_seconds = timed(
        problem(STEPS, name="finite_width", width=WIDTH, ensemble=MEMBERS, dtype="float32")
    )
    precise, _ = timed(problem(STEPS, name="dmft", samples=32768, tolerance=5e-3, seed=1))
    print(
        f"dmft, 4096 samples: {dmft_seconds:.2f} s; dense, width {WIDTH}: "
        f"{dense_seconds / MEMBERS:.2f} s a network"
    )
    for label, error, bias, scatter in (_loss(dmft, dense, precise), _kernel(dmft, dense, precise)):
        width = max(WIDTH, WIDTH * bias / (error / 2))
        members = max(1.0, (scatter / (error / 2)) ** 2 * WIDTH / width)
        seconds = dense_seconds / MEMBERS * (width / WIDTH) ** 2 * members
        print(
            f"{label}: dmft is off by {error:.2g} (its own estimate); width {WIDTH} by {bias:.2g}, one "
            f"network scatters by {scatter:.2g}"
        )
        print(
            f"  equal error from {members:.0f} networks of width {width:.0f}: {seconds:.0f} s, "
            f"{seconds / dmft_seconds:.0f} times dmft's"
        )


def _loss(dmft: Result, dense: Result, precise: Result) -> tuple[str, float, float, float]:
    """Root mean squares over the second half of training, relative to the loss."""
    half = slice(STEPS // 2, None)
    truth = precise.arrays["loss"][half]

    def relative(values: np.ndarray) -> float:
        return float(np.sqrt(np.mean((values / truth) ** 2)))

    error = relative(dmft.arrays["loss_standard_error"][half])
    bias = relative(dense.arrays["loss"][half] - truth)
    scatter = relative(dense.arrays["loss_standard_error"][half]) * MEMBERS**0.5
    return "loss", error, bias, scatter


def _kernel(dmft: Result, dense: Result, precise: Result) -> tuple[str, float, float, float]:
    """Frobenius norms of the final Phi^3, relative to its own."""
    truth = kernel_slice(precise.arrays, "phi", 3)

    def relative(values: np.ndarray) -> float:
        return float(np.linalg.norm(values) / np.linalg.norm(truth))

    error = relative(dmft.arrays["phi_3_standard_error"][-1])
    bias = relative(kernel_slice(dense.arrays, "phi", 3) - truth)
    scatter = relative(dense.arrays["phi_3_standard_error"][-1]) * MEMBERS**0.5
    return "final Phi^3", error, bias, scatter
