"""What every method is: steps that lead to numbers, and a state between them."""

from __future__ import annotations

from abc import ABC, abstractmethod

from dmft_engine.record.solution import Solution
from dmft_engine.state import State
from dmft_engine.training.reporter import Reporter


class StartOver(Exception):
    """A state is of no use to a run of more steps than it was taken from: that one begins at its beginning.

    Attributes:
        why: as users are told it.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Method(ABC):
    """A way to solve a problem, step by step. It is made with a problem and a device."""

    @property
    @abstractmethod
    def work(self) -> int:
        """Number of steps that will be reported, unless the method begins again."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether the numbers are complete."""

    @abstractmethod
    def advance(self, reporter: Reporter) -> None:
        """Go on to the next point where it can be stopped. Each step is reported when it is complete.

        Raises:
            SolveFailure: the solve cannot go on.
            Cancelled: the caller asked to stop; the state is that after the step.
        """

    @abstractmethod
    def state(self) -> State:
        """All that changes as the method goes on (state.py), between two calls of `advance`."""

    @abstractmethod
    def restore(self, state: State, reporter: Reporter, longer: bool) -> None:
        """Be as the method was that gave this state.

        Args:
            state: of a method made with the same problem, but for the number of steps if `longer`.
            reporter: what `advance` will be given.
            longer: this one has more steps.

        Raises:
            StartOver: a longer run would have come another way; this method is of no further use.
        """

    @abstractmethod
    def solution(self) -> Solution | None:
        """What was reached, also after `advance` raised; None if that is nothing. It takes nothing away."""

    def run(self, reporter: Reporter) -> None:
        """Advance to the end."""
        while not self.done:
            self.advance(reporter)
