"""How many threads a solve computes with: several only where its single operations are long.

Threads meet at the end of every operation. Where that takes less than the time slices of a machine on which
others compute, a thread that is not running then holds up all the others: operations of a few milliseconds
took several times as long with two threads as with one (`python -m benchmarks threads`). The choice follows
from the problem alone, so that the same request is computed in the same way, whatever else runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController

from dmft_engine.problem import Problem
from dmft_schema.memory import Demand

LONG = 1e9
"""Multiplications of one product from which on several threads are worth it: tens of milliseconds by one."""


def threads_for(problem: Problem, most: int) -> int:
    """Threads for a problem, of at most so many."""
    demand = Demand.of(problem, problem.data.sizes)
    return most if multiplications(demand) >= LONG else 1


def multiplications(d: Demand) -> float:
    """Of the largest product of a step, about."""
    if d.kind == "dense":
        assert d.samples is not None
        return (d.samples / d.replicas) ** 2 * d.all_points * d.outputs
    if d.kind == "alternating":
        return (d.samples or 1024) / d.replicas * float(d.steps * d.all_points * d.outputs) ** 2
    if d.kind == "algebraic":
        return float(d.steps * d.all_points * d.outputs) ** 3
    if d.kind == "static":
        return float(d.all_points * d.outputs) ** 3
    # Some three directions for each point; however many steps, for a longer run goes on in the same way.
    samples = (d.samples or d.enough_samples) / d.replicas
    return samples * 3.0 * d.all_points**2 * d.outputs


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Torch, and the libraries below numpy and scipy, compute with so many threads inside."""
    torch.set_num_threads(threads)
    with _libraries().limit(limits=threads, user_api="blas"):
        yield


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()
