"""Peak memory and file size of a long solve: T = 1000, P = 10, depth 3."""

from __future__ import annotations

import io
import resource

import numpy as np

from benchmarks.problem import problem, timed


def main() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result, seconds = timed(problem(1000, name="dmft", samples=4096))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **result.arrays)
    print(
        f"1000 steps in {seconds:.1f} s; peak memory {peak / 1e6:.2f} GB ({before / 1e6:.2f} GB before it "
        f"began); NPZ {buffer.tell() / 1e6:.1f} MB"
    )
