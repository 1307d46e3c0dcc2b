"""The gradient-independence approximation: responses A = B = 0 (paper, section 5; theory section 5)."""

from __future__ import annotations

from dmft_engine.methods.dmft import Dmft
from dmft_engine.methods.linear import Linear
from dmft_engine.methods.method import Method
from dmft_engine.problem import Problem
from dmft_engine.record.solution import Solution
from dmft_engine.state import State
from dmft_engine.training.reporter import Reporter
from dmft_schema.support import has_algebraic_theory


class GradientIndependence(Method):
    """Forward and backward fields as if their matrices were independent.

    Deep linear networks by their algebraic equations, exactly; all others by the solver of `dmft` with
    its response terms left out.
    """

    def __init__(self, problem: Problem, device: str) -> None:
        algebraic = has_algebraic_theory(problem) and not problem.outputs.field_times
        solver = Linear if algebraic else Dmft
        self._solver: Linear | Dmft = solver(problem, device, responses=False)

    @property
    def work(self) -> int:
        return self._solver.work

    @property
    def done(self) -> bool:
        return self._solver.done

    def advance(self, reporter: Reporter) -> None:
        self._solver.advance(reporter)

    def state(self) -> State:
        return self._solver.state()

    def restore(self, state: State, reporter: Reporter, longer: bool) -> None:
        self._solver.restore(state, reporter, longer)

    def solution(self) -> Solution | None:
        return self._solver.solution()
