"""The engine's front door: a problem in, a result out."""

from __future__ import annotations

import time

import numpy as np
import torch

from dmft_engine.devices import check_room
from dmft_engine.errors import NotFinite, SolveFailure, is_out_of_memory, out_of_memory
from dmft_engine.methods import method_for
from dmft_engine.problem import Problem
from dmft_engine.record.assembly import assemble
from dmft_engine.record.solution import Result
from dmft_engine.training.reporter import Cancelled, OnProgress, Reporter, ShouldStop
from dmft_engine.training.stability import Stability
from dmft_schema import JobError, JobStatus
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
        on_progress: called after each step, and before each piece that the result is put together from.
        should_stop: asked at the same moments; True ends the solve as cancelled.
        device: a torch device, such as cpu or cuda.

    Returns:
        A Result. Divergence, too few samples and exhausted memory are results with status failed
        and an error; they and a cancelled solve keep the trajectory reached so far. A solve that is cancelled
        while its result is put together keeps the whole trajectory.
    """
    started = time.perf_counter()
    method = method_for(problem, device)
    reporter = Reporter(method.work, on_progress, should_stop)
    status, error = JobStatus.SUCCEEDED, None
    try:
        check_room(Demand.of(problem, problem.data.sizes), device)
        with torch.no_grad():
            method.run(reporter)
    except Cancelled:
        status = JobStatus.CANCELLED
    except SolveFailure as failure:
        status, error = JobStatus.FAILED, failure.as_job_error()
    except NotFinite:
        status, error = JobStatus.FAILED, _not_finite(problem, reporter)
    except (torch.linalg.LinAlgError, np.linalg.LinAlgError, FloatingPointError, OverflowError) as numerics:
        status, error = JobStatus.FAILED, _numerics(numerics, reporter)
    except (RuntimeError, MemoryError, OSError) as exhausted:
        if not is_out_of_memory(exhausted):
            raise
        status, error = JobStatus.FAILED, out_of_memory(device, exhausted)
    with np.errstate(all="ignore"):  # What is not finite is left out, with a note.
        solution = method.solution()
        result = assemble(problem, solution, status, error, device, reporter)
    result.diagnostics.wall_seconds = time.perf_counter() - started
    if result.status is JobStatus.SUCCEEDED:
        reporter.end()
    return result


def _not_finite(problem: Problem, reporter: Reporter) -> JobError:
    return Stability(problem.training).diverged(reporter.steps_done).as_job_error()


def _numerics(cause: Exception, reporter: Reporter) -> JobError:
    return SolveFailure(
        f"a matrix could not be factored after {reporter.steps_done} steps: {cause}",
        "Lower training.learning_rate, or bring the scale of the data nearer to 1.",
        reporter.steps_done,
    ).as_job_error()
