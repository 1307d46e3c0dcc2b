"""The engine's front door: a problem in, a result out."""

from __future__ import annotations

import time

import torch

from dmft_engine.devices import check_room
from dmft_engine.errors import SolveFailure, is_out_of_memory, out_of_memory
from dmft_engine.methods import method_for
from dmft_engine.problem import Problem
from dmft_engine.record.solution import Result, assemble
from dmft_engine.training.reporter import Cancelled, OnProgress, Reporter, ShouldStop
from dmft_schema import JobStatus
from dmft_schema.memory import Demand


def solve(
    problem: Problem,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
    device: str = "cpu",
) -> Result:
    """Solve a problem by the method it names.

    Args:
        problem: see Problem.
        on_progress: called after each step.
        should_stop: asked after each step; True ends the solve as cancelled.
        device: a torch device, such as cpu or cuda.

    Returns:
        A Result. Divergence, too few samples and exhausted memory are results with status failed
        and an error; they and a cancelled solve keep the trajectory reached so far.
    """
    started = time.perf_counter()
    method = method_for(problem, device)
    reporter = Reporter(method.work, on_progress, should_stop)
    status, error = JobStatus.SUCCEEDED, None
    try:
        check_room(Demand.of(problem, problem.data), device)
        with torch.no_grad():
            method.run(reporter)
    except Cancelled:
        status = JobStatus.CANCELLED
    except SolveFailure as failure:
        status, error = JobStatus.FAILED, failure.as_job_error()
    except (RuntimeError, MemoryError, OSError) as exhausted:
        if not is_out_of_memory(exhausted):
            raise
        status, error = JobStatus.FAILED, out_of_memory(device, exhausted)
    wall = time.perf_counter() - started
    return assemble(problem, method.solution(), status, error, device, wall)
