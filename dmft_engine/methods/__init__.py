"""One class for each method, with one `run`. One entry in METHODS adds one."""

from __future__ import annotations

from typing import Any, Protocol

from dmft_engine.methods.alternating import Alternating
from dmft_engine.methods.dmft import Dmft
from dmft_engine.methods.finite_width import FiniteWidth
from dmft_engine.methods.gradient_independence import GradientIndependence
from dmft_engine.methods.linear import Linear
from dmft_engine.methods.perturbation import Perturbation
from dmft_engine.methods.static_ntk import LazyLimit, StaticNtk
from dmft_engine.problem import Problem
from dmft_engine.record.solution import Solution
from dmft_engine.training.reporter import Reporter


class Method(Protocol):
    """A way to solve a problem.

    `solution()` may be called at any time, also after `run` raised: it holds what was reached, or
    None if that is nothing.
    """

    def __init__(self, problem: Problem, device: str) -> None: ...

    def run(self, reporter: Reporter) -> None:
        """Solve, reporting each step.

        Raises:
            SolveFailure: the solve cannot go on.
            Cancelled: the caller asked to stop.
        """

    def solution(self) -> Solution | None: ...

    @property
    def work(self) -> int:
        """Number of steps that will be reported."""


METHODS: dict[str, type[Any]] = {
    "dmft": Dmft,
    "alternating": Alternating,
    "linear": Linear,
    "gradient_independence": GradientIndependence,
    "perturbation": Perturbation,
    "static_ntk": StaticNtk,
    "finite_width": FiniteWidth,
}


def method_for(problem: Problem, device: str) -> Method:
    """The method that a problem names; in the lazy limit, where all of them are one, its own."""
    chosen: type[Any] = METHODS[problem.method.name]
    if problem.network.gamma0 == 0 and chosen is not StaticNtk:
        chosen = LazyLimit
    method: Method = chosen(problem, device)
    return method
