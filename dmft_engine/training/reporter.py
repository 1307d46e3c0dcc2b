"""Progress out, and the wish to stop in."""

from __future__ import annotations

import time
from collections.abc import Callable

from dmft_schema import Progress

OnProgress = Callable[[Progress], None]
ShouldStop = Callable[[], bool]


class Cancelled(Exception):
    """The caller asked the solve to stop."""


class Reporter:
    """Tells the caller how far a solve is, and hears from it whether to stop."""

    def __init__(self, steps: int, on_progress: OnProgress | None, should_stop: ShouldStop | None) -> None:
        self._steps = steps
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._started = time.monotonic()
        self._done = 0
        self._note = ""
        self._loss: float | None = None

    def restart(self, note: str) -> None:
        """The method begins again, for the reason that `note` adds to all later messages."""
        self._started = time.monotonic()
        self._done = 0
        self._note = f" ({note})"

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
        if self._should_stop is not None and self._should_stop():
            raise Cancelled

    def _report(self, message: str, basis_size: int | None) -> None:
        if self._on_progress is None:
            return
        fraction = self._done / self._steps
        elapsed = time.monotonic() - self._started
        self._on_progress(
            Progress(
                fraction=fraction,
                step=self._done,
                steps=self._steps,
                message=message + self._note,
                eta_seconds=elapsed * (1 - fraction) / fraction,
                loss=self._loss,
                basis_size=basis_size,
            )
        )
