"""How the time of dmft, alternating and a dense network grows with steps, points and depth.

Exponents are those between neighbouring sizes. dmft's samples grow with the points, as they do by default.
"""

from __future__ import annotations

import math
from typing import Any

from benchmarks.problem import problem, timed

BASE = {"steps": 50, "points": 8, "depth": 3}
SIZES = {"steps": (25, 50, 100), "points": (4, 8, 16), "depth": (2, 4, 8)}
METHODS: dict[str, dict[str, Any]] = {
    "dmft": {"name": "dmft"},
    "alternating": {"name": "alternating", "samples": 512, "max_iterations": 3},
    "dense": {"name": "finite_width", "width": 1000, "ensemble": 2, "dtype": "float32"},
}


def main() -> None:
    timed(problem(5, name="dmft", samples=1024, replicas=2))
    print("tanh; alternating with 512 samples for 3 iterations, two networks of width 1000")
    for what, sizes in SIZES.items():
        for label, method in METHODS.items():
            seconds = [timed(problem(**(BASE | {what: size}), **method))[1] for size in sizes]
            exponents = [
                math.log(after / before) / math.log(larger / size)
                for before, after, size, larger in zip(seconds, seconds[1:], sizes, sizes[1:], strict=False)
            ]
            times = ", ".join(f"{size}: {s:.2f} s" for size, s in zip(sizes, seconds, strict=True))
            powers = " then ".join(f"{e:.1f}" for e in exponents)
            print(f"{what:>6}  {label:<12} {times}   (exponent {powers})", flush=True)
