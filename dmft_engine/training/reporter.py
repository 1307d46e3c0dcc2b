"""Progress out, and the wish to stop in."""

from __future__ import annotations

import time
from collections.abc import Callable

from dmft_engine.state import State
from dmft_schema import Progress

OnProgress = Callable[[Progress], None]
ShouldStop = Callable[[], bool]


class Cancelled(Exception):
    """The caller asked the solve to stop."""


TRAINING_SHARE = 0.95
"""Of the whole fraction: the rest is for putting the result together."""


class Reporter:
    """Tells the caller how far a solve is, and hears from it whether to stop."""

    def __init__(self, steps: int, on_progress: OnProgress | None, should_stop: ShouldStop | None) -> None:
        self._steps = steps
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._started = time.monotonic()
        self._done = 0
        self._note = ""
        self._remarks = ""
        self._pieces = 0
        self._assembled = 0
        self._loss: float | None = None

    def state(self) -> State:
        """What was reported so far, and how long it took."""
        return {
            "elapsed": time.monotonic() - self._started,
            "done": self._done,
            "note": self._note,
            "remarks": self._remarks,
            "loss": self._loss,
        }

    def restore(self, state: State, steps: int) -> None:
        """Go on reporting where the reporter was that gave this state, of so many steps in all."""
        self._started = time.monotonic() - state["elapsed"]
        self._steps, self._done = steps, state["done"]
        self._note, self._remarks, self._loss = state["note"], state["remarks"], state["loss"]

    def restart(self, note: str, steps: int | None = None) -> None:
        """The method begins again, for the reason that `note` adds to all later messages.

        `steps`: its number, if that has changed.
        """
        self._steps = self._steps if steps is None else steps
        self._remarks = ""
        self._started = time.monotonic()
        self._done = 0
        self._note = f" ({note})"

    def remark(self, remark: str) -> None:
        """Add something to all later messages."""
        self._remarks += f" ({remark})"

    @property
    def steps_done(self) -> int:
        """Steps reported since the method began, or began again."""
        return self._done

    @property
    def stop_asked(self) -> bool:
        """Whether the caller wants the solve to stop."""
        return self._should_stop is not None and self._should_stop()

    def check(self) -> None:
        """Raise Cancelled if the caller wants the solve to stop."""
        if self.stop_asked:
            raise Cancelled

    def assembling(self, pieces: int) -> None:
        """Training has ended; its result is put together from this many pieces."""
        self._started = time.monotonic()
        self._pieces = pieces

    def piece(self, name: str) -> None:
        """Report that a piece of the result comes next."""
        elapsed, done = time.monotonic() - self._started, self._assembled
        self._assembled += 1
        self._tell(
            f"putting the result together: {name} ({self._assembled} of {self._pieces})",
            TRAINING_SHARE + (1 - TRAINING_SHARE) * done / self._pieces,
            elapsed * (self._pieces - done) / done if done else None,
            None,
        )

    def end(self) -> None:
        """Report that the result is there."""
        self._tell("done", 1.0, 0.0, None)

    def finish(self, message: str) -> None:
        """Report that the method has ended before the steps it might have taken."""
        self._steps = self._done
        self._report(message, None)

    def step(self, message: str, loss: float, basis_size: int | None = None) -> None:
        """Report one more step done.

        Raises:
            Cancelled: the caller wants the solve to stop.
        """
        self._done += 1
        self._loss = loss
        self._report(message, basis_size)
        self.check()

    def _report(self, message: str, basis_size: int | None) -> None:
        fraction = TRAINING_SHARE * self._done / self._steps
        elapsed = time.monotonic() - self._started
        self._tell(message, fraction, elapsed * (1 - fraction) / fraction, basis_size)

    def _tell(self, message: str, fraction: float, eta: float | None, basis_size: int | None) -> None:
        if self._on_progress is None:
            return
        self._on_progress(
            Progress(
                fraction=fraction,
                step=self._done,
                steps=self._steps,
                message=message + self._note + self._remarks,
                eta_seconds=eta,
                loss=self._loss,
                basis_size=basis_size,
            )
        )
