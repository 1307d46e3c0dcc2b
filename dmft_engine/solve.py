"""The engine's front door: a problem in, a result out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from dmft_engine.checkpoint import check_longer, identity, is_longer
from dmft_engine.devices import check_room, limited_to
from dmft_engine.errors import EngineError, NotFinite, SolveFailure, is_out_of_memory, out_of_memory
from dmft_engine.methods import method_for
from dmft_engine.methods.method import StartOver
from dmft_engine.problem import Problem
from dmft_engine.record.assembly import assemble
from dmft_engine.record.solution import Result, Solution
from dmft_engine.state import State, moved
from dmft_engine.training.reporter import Cancelled, OnProgress, Reporter, ShouldStop
from dmft_engine.training.stability import Stability
from dmft_schema import JobError, JobStatus
from dmft_schema.memory import Demand


class Solving:
    """One solve on its way: steps until it has ended, a state between them, a result at any time.

    Attributes:
        resumed: whether it goes on from the state that it was given; False if it had to begin again.
        status: None while there is more to do, then what the result will have.
        error: why it failed.
    """

    def __init__(
        self,
        problem: Problem,
        on_progress: OnProgress | None = None,
        should_stop: ShouldStop | None = None,
        device: str = "cpu",
        resume: State | None = None,
        memory_bytes: float = math.inf,
    ) -> None:
        """See `solve`.

        Raises:
            CannotResume: the state is not one of this problem.
        """
        self._started = time.perf_counter()
        self._problem = problem
        self._device = device
        self._memory_bytes = memory_bytes
        self._trained: Solution | None = None
        self._method = method_for(problem, device)
        self._reporter = Reporter(self._method.work, on_progress, should_stop)
        self.resumed = False
        self.status: JobStatus | None = None
        self.error: JobError | None = None
        longer = resume is not None and is_longer(problem, resume)
        self._guarded(lambda: check_room(Demand.of(problem, problem.data.sizes), device))
        if resume is not None and self.status is None:
            self._guarded(lambda: self._restore(resume, longer))

    def _restore(self, state: State, longer: bool) -> None:
        self._started -= state["seconds"]
        state = moved(state, self._device)
        try:
            if longer:
                check_longer(self._problem, state)
            self._method.restore(state["method"], self._reporter, longer)
        except StartOver as over:
            self._method = method_for(self._problem, self._device)
            self._reporter.restart(f"begun again: {over.why}")
            return
        self._reporter.restore(state["reporter"], self._method.work)
        self.resumed = True

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to do."""
        return self.status is not None

    def advance(self) -> None:
        """Go on to the next point where it can be stopped."""
        if not self.ended and not self._method.done:
            self._guarded(lambda: self._method.advance(self._reporter))
        if not self.ended and self._method.done:
            self.status = JobStatus.SUCCEEDED

    def state(self) -> State:
        """All that is needed to go on from here, or from the end with more steps: for `resume`.

        Tensors, numbers, strings, and lists and dicts of these: torch.save writes it, and torch.load reads it
        with weights_only=True. As large as the solve's memory.

        Raises:
            EngineError: the solve has failed; go on from an earlier state.
        """
        if self.status is JobStatus.FAILED:
            raise EngineError("a failed solve has no state to go on from; take an earlier one")
        with torch.no_grad():
            return {
                "identity": identity(self._problem),
                "seconds": time.perf_counter() - self._started,
                "reporter": self._reporter.state(),
                "method": self._method.state(),
            }

    def result(self) -> Result:
        """Put together what was reached. It is the last thing to ask for: the weights are let go."""
        status = JobStatus.CANCELLED if self.status is None else self.status
        with np.errstate(all="ignore"):  # What is not finite is left out, with a note.
            solution = self._method.solution()
            self._trained = solution and _trajectory_of(solution)
            del self._method  # The bulk of the memory, which putting the result together needs.
            result = assemble(self._problem, solution, status, self.error, self._device, self._reporter)
        result.diagnostics.wall_seconds = time.perf_counter() - self._started
        if result.status is JobStatus.SUCCEEDED:
            self._reporter.end()
        return result

    def reached(self) -> Result | None:
        """The trajectory so far, for another thread to take if this one no longer answers, or None.

        It is a cancelled result without kernels: those are at work on the thread that hangs.
        """
        solution = self._trained or self._method.solution()
        if solution is None or not solution.predictions.shape[1]:
            return None
        with np.errstate(all="ignore"):
            silent = Reporter(1, None, None)
            alone = _trajectory_of(solution)
            return assemble(self._problem, alone, JobStatus.CANCELLED, None, self._device, silent)

    def _guarded(self, act: Callable[[], None]) -> None:
        """Do something; what goes wrong becomes the status and the error."""
        try:
            with torch.no_grad(), limited_to(self._memory_bytes):
                act()
        except Cancelled:
            self.status = JobStatus.CANCELLED
        except SolveFailure as failure:
            self._fail(failure.as_job_error())
        except NotFinite:
            self._fail(_not_finite(self._problem, self._reporter))
        except (
            torch.linalg.LinAlgError,
            np.linalg.LinAlgError,
            FloatingPointError,
            OverflowError,
        ) as numerics:
            self._fail(_numerics(numerics, self._reporter))
        except (RuntimeError, MemoryError, OSError) as exhausted:
            if not is_out_of_memory(exhausted):
                raise
            self._fail(out_of_memory(self._device, exhausted))

    def _fail(self, error: JobError) -> None:
        self.status, self.error = JobStatus.FAILED, error


def solve(
    problem: Problem,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
    device: str = "cpu",
    resume: State | None = None,
    checkpoint: Callable[[Solving], None] | None = None,
    memory_bytes: float = math.inf,
    on_start: Callable[[Solving], None] | None = None,
) -> Result:
    """Solve a problem by the method it names.

    Args:
        problem: see Problem.
        on_progress: called after each step, and before each piece that the result is put together from.
        should_stop: asked at the same moments; True ends the solve as cancelled.
        device: a torch device, such as cpu or cuda.
        resume: what Solving.state() gave, of this problem or of the same one with fewer steps. The result is
            bit for bit that of one solve without a stop, on the same kind of device with the same number of
            threads. Where what was done is no part of the longer run (docs/checkpoints.md), it begins
            again, and says so in its progress.
        checkpoint: called after each step, the last included, and after a cancelled one; it may take the
            state, which costs a copy of all memory, and look whether the solve has ended.
        memory_bytes: what the solve may take of the device's memory, if that is less than all that is free.
        on_start: called with the solve before it begins: another thread may ask it for what it has reached.

    Returns:
        A Result. Divergence, too few samples and exhausted memory are results with status failed
        and an error; they and a cancelled solve keep the trajectory reached so far. A solve that is cancelled
        while its result is put together keeps the whole trajectory.

    Raises:
        CannotResume: the state is of another problem, or of another version of the engine's numbers.
    """
    solving = Solving(problem, on_progress, should_stop, device, resume, memory_bytes)
    if on_start is not None:
        on_start(solving)
    while not solving.ended:
        solving.advance()
        if checkpoint is not None and solving.status is not JobStatus.FAILED:
            checkpoint(solving)
    return solving.result()


def _trajectory_of(solution: Solution) -> Solution:
    return replace(solution, kernel_steps=[], phi=[], g=[], ntk=None, ntk_standard_error=None, later={})


def _not_finite(problem: Problem, reporter: Reporter) -> JobError:
    return Stability(problem.training).diverged(reporter.steps_done).as_job_error()


def _numerics(cause: Exception, reporter: Reporter) -> JobError:
    return SolveFailure(
        f"a matrix could not be factored after {reporter.steps_done} steps: {cause}",
        "Lower training.learning_rate, or bring the scale of the data nearer to 1.",
        reporter.steps_done,
    ).as_job_error()
