"""What moves a training run from one recorded time to the next."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from dmft_engine.state import Stateful
from dmft_engine.training.training_run import TrainingRun


class Trainer(Stateful):
    """Trains a run step by step. Between two steps it can be stopped, and its state taken.

    Attributes:
        run: what is trained.
        step: recorded times that lie behind it.
    """

    kept: ClassVar[tuple[str, ...]] = ("run", "step")

    def __init__(self, run: TrainingRun) -> None:
        self.run = run
        self.step = 0

    @property
    def done(self) -> bool:
        """Whether all times are recorded."""
        return self.step >= self.run.problem.training.steps

    def advance(self) -> None:
        """Record the next time, and report it. What is left to do before another one may come first or last.

        Raises:
            Diverged, Imprecise, TooLittlePrecision, Exhausted: it cannot go on; the trajectory holds what was
                reached before.
            Cancelled: the caller asked to stop, after this step.
        """
        loss = self._next()
        self.step += 1
        self.run.report(loss)

    @abstractmethod
    def _next(self) -> float:
        """Record the next time. Returns its loss."""
