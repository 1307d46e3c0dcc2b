"""What can go wrong in the engine.

EngineError               a call that validation should have refused (a bug in the caller)
SolveFailure              a solve that cannot go on; solve() turns it into a failed Result
  Diverged                the trajectory left the finite numbers, or is on its way there
  TooFewSamples           training visits more directions than the sampled neurons can tell apart
  OutOfMemory             the device's memory is exhausted
  TooLittlePrecision      updates are lost in the rounding even of float64
  NotPositive             what should be a covariance is none
NotFinite                 numbers have left their dtype; solve() turns it into Diverged
"""

from __future__ import annotations

import errno

import torch

from dmft_schema import JobError


class EngineError(ValueError):
    """The problem as given cannot be solved by this engine."""


class SolveFailure(Exception):
    """A solve that cannot go on. Carries what to tell the user."""

    code = "solve_failed"

    def __init__(self, message: str, advice: str, step: int | None = None) -> None:
        super().__init__(message)
        self.advice = advice
        self.step = step

    def as_job_error(self) -> JobError:
        return JobError(code=self.code, message=str(self), advice=self.advice, step=self.step)


class Diverged(SolveFailure):
    code = "diverged"


class TooFewSamples(SolveFailure):
    code = "too_few_samples"


class OutOfMemory(SolveFailure):
    code = "out_of_memory"


class TooLittlePrecision(SolveFailure):
    code = "too_little_precision"


class NotPositive(SolveFailure):
    """A factorisation of something that should be positive semidefinite, and is not within its rounding."""

    code = "not_positive"

    def __init__(self, size: int) -> None:
        super().__init__(
            f"a covariance of {size} fields has become negative: its estimate does not hold together",
            "Raise method.samples or method.damping, or lower training.learning_rate.",
        )


class NotFinite(Exception):
    """A field or kernel has left the numbers that its dtype holds, or can square."""


_EXHAUSTED = ("can't allocate memory", "cannot allocate memory", "DefaultCPUAllocator", "bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, in any of the spellings of numpy, torch and Linux."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _EXHAUSTED)


def out_of_memory(device: str, cause: BaseException) -> JobError:
    """What a user is told when memory ran out on a device."""
    return OutOfMemory(
        f"the solve ran out of memory on {device}: {cause}",
        "Use fewer method.samples (or a smaller width and ensemble), fewer outputs.kernel_times, or float32.",
    ).as_job_error()
