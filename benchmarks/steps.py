"""Cost against the number of steps at fixed eta T: linear, because the bases stop growing."""

from __future__ import annotations

from benchmarks.problem import problem, timed


def main() -> None:
    timed(problem(5, name="dmft", samples=1024, replicas=2))  # the first solve of a process warms torch up
    print("P = 10, depth 3, tanh, 4096 samples; phi and g: largest basis of any layer")
    print(f"{'steps':>6} {'seconds':>8} {'ms/step':>8} {'phi':>5} {'g':>5} {'time / time at 100':>19}")
    first = None
    for steps in (100, 400, 1000):
        result, seconds = timed(problem(steps, name="dmft", samples=4096))
        first = first or seconds
        sizes = result.diagnostics.basis_sizes
        phi = max(size for name, size in sizes.items() if name.startswith("phi"))
        g = max(size for name, size in sizes.items() if name.startswith("g"))
        print(
            f"{steps:6d} {seconds:8.2f} {1000 * seconds / steps:8.2f} {phi:5d} {g:5d} {seconds / first:19.2f}"
        )
    _, seconds = timed(problem(100, name="dmft", samples=1024, replicas=2, tolerance=0.03))
    print(f"1024 samples (2 replicas, tolerance 0.03), 100 steps: {seconds:.2f} s")
