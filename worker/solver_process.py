"""The solver process: the only one that imports the engine. Kept warm, it solves one job at a time."""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from dmft_engine import NUMERICS_VERSION, Problem, Result, solve
from dmft_engine.errors import OutOfMemory, is_out_of_memory, out_of_memory
from dmft_engine.methods import METHODS
from dmft_engine.solve import Solving
from dmft_engine.threads import computing_with, threads_for
from dmft_schema import Data, InputData, JobError, JobStatus, KernelData, Progress, ResultDocument
from dmft_schema.refusal import field_errors, in_one_line
from jobs import storage
from jobs.artifacts import RESULT_JSON, RESULT_NPZ
from worker.protocol import STORAGE_FULL, UNREADABLE_COMMAND, About, Message, SolveCommand

_PROGRESS_SECONDS = 0.1
_MOST_FIELDS = 5
_RESCUE_SECONDS = 3.0
"""How long a solve that is asked to end may take to do so before what it has reached is taken from it."""

Reached = Callable[[], tuple[Result | None, SolveCommand]]
"""What the running job has reached, and its command."""


class Solver:
    """Reads commands on one thread and solves on the main one."""

    def __init__(self, commands: IO[str], messages: IO[str], device: str = "cpu") -> None:
        self._commands = commands
        self._device = device
        self._messages = messages
        self._stop = threading.Event()
        self._next: list[SolveCommand] = []
        self._wake = threading.Condition()
        self._rescue: Reached | None = None
        self._ending = threading.RLock()
        self._ended = threading.Event()

    def run(self) -> None:
        """Solve until stdin ends."""
        threading.Thread(target=self._listen, daemon=True).start()
        self._say(Message(ready=True, about=_about(self._device)))
        while True:
            with self._wake:
                self._wake.wait_for(lambda: bool(self._next))
                command = self._next.pop()
            self._solve(command)

    def _listen(self) -> None:
        try:
            for line in self._commands:
                self._obey(line)
        except Exception:
            # Deaf, this process would only look as if it worked: its end has the job run again.
            traceback.print_exc()
            os._exit(UNREADABLE_COMMAND)
        # The supervisor is gone: whatever is computed has nobody to go to.
        os._exit(0)

    def _obey(self, line: str) -> None:
        content = json.loads(line)
        if content.get("stop"):
            self._stop.set()
            if content.get("rescue") and self._rescue is not None:
                threading.Thread(target=self._save_what_there_is, args=[self._rescue], daemon=True).start()
            return
        command = SolveCommand.model_validate(content)
        with self._wake:
            self._stop.clear()
            self._ended.clear()
            self._next.append(command)
            self._wake.notify()

    def _say(self, message: Message) -> None:
        self._messages.write(message.model_dump_json(exclude_defaults=True) + "\n")
        self._messages.flush()

    def _solve(self, command: SolveCommand) -> None:
        def on_start(solving: Solving) -> None:
            self._rescue = lambda: (solving.reached(), command)

        try:
            error = _device_error(command.device)
            if error is not None:
                self._end(Message(done=JobStatus.FAILED, error=error))
                return
            problem = Problem.from_request(command.request, _dataset(command.dataset))
            most = math.inf if command.memory_bytes is None else command.memory_bytes
            stop = self._stop.is_set
            with computing_with(threads_for(problem, command.threads)):
                result = solve(
                    problem,
                    self._progress(),
                    stop,
                    command.device,
                    memory_bytes=most,
                    on_start=on_start,
                )
            with self._ending:
                error = _write(result, command)
                done = Message(done=result.status, error=result.error, spent=_ran_out(result.error))
                self._end(done if error is None else Message(done=JobStatus.FAILED, error=error))
        except Exception as bug:
            # A supervisor must hear of everything, or the job would look as if it ran for ever.
            if storage.is_full(bug):
                self._end(Message(done=JobStatus.FAILED, error=STORAGE_FULL, spent=True))
                return
            traceback.print_exc()
            error = out_of_memory(command.device, bug) if is_out_of_memory(bug) else _internal(bug)
            self._end(Message(done=JobStatus.FAILED, error=error, spent=True))

    def _end(self, message: Message) -> None:
        """Say how the job ended, once."""
        with self._ending:
            if not self._ended.is_set():
                self._ended.set()
                self._rescue = None
                self._say(message)

    def _save_what_there_is(self, rescue: Reached) -> None:
        """For a job that was asked to end and does not: its thread hangs, but what it has reached is here."""
        if self._ended.wait(_RESCUE_SECONDS):
            return
        with self._ending:
            if self._rescue is not rescue:  # it has ended, and the next one has begun
                return
            try:
                result, command = rescue()
                if result is not None and _write(result, command) is None:
                    self._end(Message(done=JobStatus.CANCELLED, spent=True))
            except Exception:
                # The supervisor says that there is nothing to keep, and ends this process.
                traceback.print_exc()

    def _progress(self):  # type: ignore[no-untyped-def]
        last = 0.0

        def report(progress: Progress) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _PROGRESS_SECONDS or progress.step == progress.steps:
                last = now
                self._say(Message(progress=progress))

        return report


def _about(device: str) -> About:
    error = _device_error(device)
    on_gpu = device.startswith("cuda") and error is None
    return About(
        methods=list(METHODS),
        numerics=NUMERICS_VERSION,
        torch=torch.__version__,
        device_bytes=torch.cuda.get_device_properties(device).total_memory if on_gpu else None,
        device_error=error,
    )


def _device_error(device: str) -> JobError | None:
    if device.startswith("cuda") and not torch.cuda.is_available():
        return JobError(
            code="device_unavailable",
            message=f"this worker is set to use {device}, but torch sees no GPU",
            advice="Ask the server's operator to set DMFT_DEVICE=cpu or to give the worker a GPU.",
        )
    return None


def _internal(bug: Exception) -> JobError:
    return JobError(
        code="internal",
        message=f"the solver failed unexpectedly: {type(bug).__name__}: {bug}",
        advice="This is a bug in the service: please report it with the job's request.",
    )


def _dataset(path: str | None) -> KernelData | InputData | None:
    if path is None:
        return None
    data = TypeAdapter(Data).validate_json(Path(path).read_text())
    assert isinstance(data, KernelData | InputData)
    return data


def _ran_out(error: JobError | None) -> bool:
    return error is not None and error.code == OutOfMemory.code


def _write(result: Result, command: SolveCommand) -> JobError | None:
    """Write the result's files; none if the schema refuses it, for then nobody could open them.

    Returns what the job failed by: the engine's own error, if it had one, says more than the refusal.
    """
    try:
        document = result.document()
        # At the end, where jobs/own_results.py puts another solve's in their place.
        document.manifest["request"] = command.request.model_dump(mode="json")
        document.manifest["solve_id"] = command.job_id
        text = document.model_dump_json()
        ResultDocument.model_validate_json(text)
    except ValidationError as refusal:
        return result.error or _refused(refusal)
    folder = Path(command.folder)
    with open(folder / RESULT_NPZ, "wb") as stream:
        np.savez(stream, allow_pickle=False, **result.arrays, document=_embedded(document))
    (folder / RESULT_JSON).write_text(text)
    return None


def _refused(refusal: ValidationError) -> JobError:
    fields = in_one_line(field_errors(refusal.errors()[:_MOST_FIELDS]))
    return JobError(
        code="result_refused",
        message=f"the result is not one that the service may give out: {fields}",
        advice="Usually numbers out of the precision's range: use float64, or rescale the data.",
    )


def _embedded(document: ResultDocument) -> NDArray[np.uint8]:
    """What the NPZ says of itself: the document but for the arrays that stand beside it."""
    about = document.model_dump_json(include={"complete", "summary", "diagnostics", "manifest"})
    return np.frombuffer(about.encode(), dtype=np.uint8)


def main() -> None:
    """Entry point: `python -m worker.solver_process <file descriptor for messages> <device>`."""
    with open(int(sys.argv[1]), "w") as messages:
        Solver(sys.stdin, messages, *sys.argv[2:]).run()


if __name__ == "__main__":
    main()
