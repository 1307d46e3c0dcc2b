"""What supervisor and solver process say to each other: one JSON object a line.

Down the solver's stdin: a SolveCommand starts a job; {"stop": true} asks the running one to end, and with
"rescue": true, what it has reached is asked for even if it does not. Up a
pipe of their own (so that nothing printed can disturb them): Ready, then Progress lines, then Done.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from dmft_schema import JobError, JobStatus, Progress, SolveRequest

UNREADABLE_COMMAND = 65
"""Exit code of a solver process that cannot read what it is told (EX_DATAERR of sysexits.h)."""


class SolveCommand(BaseModel):
    """Solve `request` and write result.json and result.npz into `folder`."""

    kind: Literal["solve"] = "solve"
    request: SolveRequest
    folder: str
    job_id: str = ""
    dataset: str | None = None
    device: str
    threads: int
    memory_bytes: float | None = None
    """What the solve may take; None for all that is free."""


class About(BaseModel):
    """What a solver process can do: its engine, and the device that it was started for.

    Attributes:
        methods: names of those that the engine knows.
        numerics: NUMERICS_VERSION of the engine.
        torch: its version.
        device_bytes: memory of the device; None where that is the machine's.
        device_error: why the device cannot be used, if it cannot.
    """

    methods: list[str]
    numerics: str
    torch: str
    device_bytes: float | None = None
    device_error: JobError | None = None


class Message(BaseModel):
    """From the solver: exactly one of ready, progress and done is set."""

    ready: bool = False
    about: About | None = None
    """With `ready`."""
    progress: Progress | None = None
    done: JobStatus | None = None
    error: JobError | None = None
    spent: bool = False
    """With `done`: this process should not take another job."""


STORAGE_FULL = JobError(
    code="storage_full",
    message="the server's disk has no room for the result",
    advice="Ask for less (fewer kernels or kernel times), delete solves that you no longer need, or ask "
    "the server's operator for room.",
)
"""The solver could not write its files."""
