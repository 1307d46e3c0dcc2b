"""Where dmft's time goes on the reference problem: the operations that take most of it."""

from __future__ import annotations

import cProfile
import pstats
from typing import Any

from benchmarks.problem import problem, timed


def main() -> None:
    timed(problem(5, name="dmft", samples=1024, replicas=2))
    profiler = cProfile.Profile()
    profiler.enable()
    _, seconds = timed(problem(100, name="dmft", samples=4096))
    profiler.disable()
    table: dict[Any, Any] = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    own = sorted(((time, calls, place) for place, (_, calls, time, _, _) in table.items()), reverse=True)
    total = sum(time for time, _, _ in own)
    print(f"tanh, L = 3, P = 10, T = 100, 4096 samples: {seconds:.2f} s under the profiler")
    for time, calls, (file, line, name) in own[:12]:
        place = name if file == "~" else f"{file.rpartition('/')[2]}:{line} {name}"
        print(f"{100 * time / total:5.1f}%  {calls:7d} calls  {place}")
