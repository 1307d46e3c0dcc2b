"""The dynamical mean-field theory of wide neural networks: a problem in, a result out.

from dmft_engine import Problem, solve
result = solve(Problem.from_request(request))

A solve can be stopped and gone on with: see `solve` and `Solving`.
"""

from dmft_engine.checkpoint import CannotResume
from dmft_engine.errors import EngineError
from dmft_engine.problem import Problem
from dmft_engine.record.solution import Result
from dmft_engine.solve import Solving, solve
from dmft_schema import Progress
from dmft_schema.numerics import NUMERICS_VERSION

__all__ = [
    "NUMERICS_VERSION",
    "CannotResume",
    "EngineError",
    "Problem",
    "Progress",
    "Result",
    "Solving",
    "solve",
]
