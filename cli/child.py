"""A process of the server that is started again whenever it ends by itself."""

from __future__ import annotations

import logging
import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from jobs.embedded_redis import die_with_parent

logger = logging.getLogger(__name__)

STOP_SECONDS = 15.0


@dataclass
class Backoff:
    """When to start something again that keeps ending: at once, then ever later, but always again."""

    first: float = 0.25
    longest: float = 5.0
    forgiven: float = 10.0
    """A life of so many seconds makes up for all that were short."""

    _delay: float = 0.0
    _started: float = 0.0
    _next: float | None = None

    def begun(self) -> None:
        """It was started just now."""
        self._started = time.monotonic()
        self._next = None

    def due(self) -> bool:
        """To be asked while it does not run: whether to start it now."""
        now = time.monotonic()
        if self._next is None:
            if now - self._started >= self.forgiven:
                self._delay = 0.0
            self._next = now + self._delay
            self._delay = min(max(2 * self._delay, self.first), self.longest)
        return now >= self._next


@dataclass
class Child:
    """A process of the server.

    Attributes:
        output: takes what it prints, which is little: its log is a file of its own.
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    output: Path
    inherited: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    _backoff: Backoff = field(default_factory=Backoff)

    def start(self) -> None:
        try:
            stream = os.open(self.output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError:  # on a full disk, it still can run
            stream = os.open(os.devnull, os.O_WRONLY)
        try:
            # A pre-exec hook is safe here: it makes one system call and takes no lock. Standard output is
            # nobody's: Celery prints to it in the middle of its shutdown, which a full disk would break.
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stream,
                env=os.environ | self.environment,
                pass_fds=self.inherited,
                start_new_session=True,
                umask=0o077,
                preexec_fn=die_with_parent,
            )
        finally:
            os.close(stream)
            self._backoff.begun()

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def tend(self) -> None:
        """Start it again if it has ended, later each time that it ended soon; it is never given up."""
        if self.alive or not self._backoff.due():
            return
        status = None if self.process is None else self.process.returncode
        logger.warning("%s ended with status %s; starting it again", self.name, status)
        try:
            self.start()
        except OSError:
            logger.exception("%s could not be started; trying again", self.name)

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            logger.warning("%s does not end within %g s; killing it", self.name, STOP_SECONDS)
            self.process.kill()
            self.process.wait()

    def obituary(self, log: Path) -> str:
        """What happened, with the end of what it wrote."""
        assert self.process is not None
        lines = [
            line
            for file in (log, self.output)
            if file.exists()
            for line in file.read_text(errors="replace").splitlines()[-15:]
        ]
        ended = f"{self.name} ended with status {self.process.returncode}"
        return "\n".join([f"{ended}; the end of {log}:", *lines])
