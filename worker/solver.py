"""A handle on a solver process, and the warm ones waiting for work."""

from __future__ import annotations

import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from pydantic import ValidationError

from jobs.embedded_redis import die_with_parent
from worker.protocol import UNREADABLE_COMMAND, About, Message, SolveCommand

logger = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "worker.solver_process")


# Waiting threads sleep rather than spin: spinning takes the cores from whoever else computes there.
# Read by OpenMP when torch is imported, so they have to stand in the environment; the operator's win.
PATIENT = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
_LAST_SECONDS = 2.0


class SolverDied(Exception):
    """The solver process ended on its own."""


class SolverProcess:
    """One solver process, in a process group of its own."""

    def __init__(self, command: Sequence[str] = COMMAND, device: str = "cpu") -> None:
        read_end, write_end = os.pipe()
        self._process = subprocess.Popen(
            [*command, str(write_end), device],
            stdin=subprocess.PIPE,
            pass_fds=[write_end],
            start_new_session=True,
            preexec_fn=die_with_parent,
            text=True,
            env=PATIENT | os.environ,
        )
        os.close(write_end)
        self._messages: queue.Queue[Message | None] = queue.Queue()
        self._about: Future[About] = Future()
        threading.Thread(target=self._listen, args=[read_end], daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def _listen(self, read_end: int) -> None:
        with open(read_end) as pipe:
            for line in pipe:
                try:
                    message = Message.model_validate_json(line)
                except ValidationError:
                    logger.exception("solver %s said what cannot be read", self.pid)
                    break
                if message.about is not None:
                    self._about.set_result(message.about)
                self._messages.put(message)
        self._messages.put(None)
        if not self._about.done():
            self._about.set_exception(SolverDied(self._epitaph()))

    def about(self, timeout: float) -> About:
        """What it can do, once it is ready.

        Raises:
            SolverDied: it ended before.
            TimeoutError: it takes longer than `timeout` seconds.
        """
        return self._about.result(timeout)

    def solve(self, command: SolveCommand) -> None:
        """Start a job."""
        self._say(command.model_dump_json())

    def ask_to_stop(self) -> None:
        """Ask the running job to end; it will say Done with what it has."""
        self._say('{"stop": true}')

    def ask_for_what_there_is(self) -> None:
        """Ask the running job to end; if it does not, the process says Done with the trajectory that it has
        reached, where its other threads still run."""
        self._say('{"stop": true, "rescue": true}')

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            # Its end shows as SolverDied at the next receive, with everything it said before.
            logger.warning("solver %s is gone", self.pid)

    def receive(self, timeout: float) -> Message | None:
        """The next message; None if none comes in time.

        Raises:
            SolverDied: the process has ended, or can no longer be heard.
        """
        try:
            message = self._messages.get(timeout=max(timeout, 0.0))
        except queue.Empty:
            return None
        if message is None:
            self._messages.put(None)
            raise SolverDied(self._epitaph())
        return message

    def _epitaph(self) -> str:
        try:
            code = self._process.wait(_LAST_SECONDS)
        except subprocess.TimeoutExpired:
            return "the solver process lives, but can no longer be heard"
        if code == UNREADABLE_COMMAND:
            return (
                "the solver process could not read its command (was the service upgraded under a "
                "running worker? Restarting the worker helps)"
            )
        if code < 0:
            return f"the solver process was killed by {signal.Signals(-code).name}"
        return f"the solver process ended with exit code {code}"

    def kill(self, grace: float = 2.0) -> None:
        """End the process group: TERM, then KILL."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(grace)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


class SolverPool:
    """Warm solvers: importing torch takes seconds, as long as many jobs."""

    def __init__(self, command: Sequence[str] = COMMAND, device: str = "cpu") -> None:
        self._command = command
        self._device = device
        # Linux ties the life of a child to the thread that made it, so one lasting thread makes them all.
        self._spawner = ThreadPoolExecutor(1, thread_name_prefix="spawner")
        self._idle: list[SolverProcess] = []
        self._lock = threading.Lock()
        self._closed = False

    def keep_warm(self, count: int) -> None:
        """Start so many solvers before there is anything to solve."""
        for _ in range(count):
            self.give_back(self._spawn())

    def about(self, timeout: float) -> About:
        """What the pool's solvers can do; see SolverProcess.about."""
        solver = self.acquire()
        try:
            return solver.about(timeout)
        finally:
            self.give_back(solver)

    def acquire(self) -> SolverProcess:
        """A solver that nobody else uses."""
        with self._lock:
            while self._idle:
                solver = self._idle.pop()
                if solver.alive:
                    return solver
                solver.kill()
        return self._spawn()

    def give_back(self, solver: SolverProcess) -> None:
        """Keep a solver that ended its job properly for the next one."""
        with self._lock:
            self._idle.append(solver)

    def replace(self, solver: SolverProcess) -> None:
        """End a solver that should not take another job; a fresh one gets warm in its place."""
        solver.kill()
        if not self._closed:
            self.give_back(self._spawn())

    def _spawn(self) -> SolverProcess:
        return self._spawner.submit(SolverProcess, self._command, self._device).result()

    def close(self) -> None:
        """End all idle solvers."""
        self._closed = True
        with self._lock:
            idle, self._idle = self._idle, []
        for solver in idle:
            solver.kill()
        self._spawner.shutdown()
