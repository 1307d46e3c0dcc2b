"""Threads of a solver on an idle and on a busy machine: `python -m benchmarks threads`.

Each problem is solved by one, two and all threads in turn, with waiting threads asleep (as workers have them)
and spinning, alone and beside as many processes that only compute as there are cores. Each is a process of
its own; what is printed is the shortest of a few solves, over that of one thread under the same load.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.problem import problem, timed
from worker.solver import PATIENT

PROBLEMS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "static_ntk, P = 10": (100, 10, {"name": "static_ntk"}),
    "dmft, P = 10, 2048 samples": (50, 10, {"name": "dmft", "samples": 2048}),
    "dmft, P = 30, 8192 samples": (20, 30, {"name": "dmft", "samples": 8192}),
    "finite_width, N = 500, P = 10": (50, 10, {"name": "finite_width", "width": 500, "ensemble": 2}),
    "finite_width, N = 2000, P = 30, T = 10": (
        10,
        30,
        {"name": "finite_width", "width": 2000, "ensemble": 1},
    ),
}
ROUNDS = 3
_CHILD = "from benchmarks.threads import child; child()"
_BURN = "while True: pass"


def child() -> None:
    """Print the shortest time of a few solves: problem, threads and rounds are the arguments."""
    import torch

    steps, points, method = PROBLEMS[sys.argv[1]]
    torch.set_num_threads(int(sys.argv[2]))
    timed(problem(2, points, **method))
    print(min(timed(problem(steps, points, **method))[1] for _ in range(int(sys.argv[3]))))


def _seconds(name: str, threads: int, patient: bool) -> float:
    waits = {*PATIENT, "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
    environment = {key: value for key, value in os.environ.items() if key not in waits}
    command = [sys.executable, "-c", _CHILD, name, str(threads), str(ROUNDS)]
    environment |= PATIENT if patient else {}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


@contextmanager
def _load(processes: int) -> Iterator[None]:
    burning = [subprocess.Popen([sys.executable, "-c", _BURN]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in burning:
            process.kill()
            process.wait()


def main() -> None:
    cores = os.cpu_count() or 1
    counts = sorted({2, cores} - {1})
    print(f"{cores} cores; load average {os.getloadavg()[0]:.1f} before it began")
    for label, processes in (("alone", 0), (f"beside {cores} others", cores)):
        with _load(processes):
            for name in PROBLEMS:
                one = _seconds(name, 1, True)
                ratios = [
                    f"{count} {how} {_seconds(name, count, patient) / one:.2f}"
                    for count in counts
                    for how, patient in (("asleep", True), ("spinning", False))
                ]
                print(f"{label:<16} {name:<32} {one:7.3f} s by one thread; {', '.join(ratios)}", flush=True)


if __name__ == "__main__":
    main()
