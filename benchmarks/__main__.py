"""Runs each benchmark in a process of its own, so that none inherits another's memory or warmth."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

BENCHMARKS = ("steps", "memory", "equal_error", "growth", "profile", "latency", "threads")
LONG = ("coverage",)
"""Run only when named: a quarter of an hour."""


def main() -> None:
    chosen = sys.argv[1:] or BENCHMARKS
    unknown = set(chosen) - {*BENCHMARKS, *LONG}
    if unknown:
        sys.exit(f"unknown benchmark {sorted(unknown)}; there are {', '.join((*BENCHMARKS, *LONG))}")
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    for name in chosen:
        print(f"\n== {name}", flush=True)
        subprocess.run([sys.executable, "-c", f"from benchmarks import {name}; {name}.main()"], check=True)


if __name__ == "__main__":
    main()
