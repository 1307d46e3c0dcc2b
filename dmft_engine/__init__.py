"""The dynamical mean-field theory of wide neural networks: a problem in, a result out.

from dmft_engine import Problem, solve
result = solve(Problem.from_request(request))
"""

from dmft_engine.errors import EngineError
from dmft_engine.problem import Problem
from dmft_engine.record.solution import Result
from dmft_engine.solve import solve
from dmft_schema import Progress
from dmft_schema.numerics import NUMERICS_VERSION

__all__ = ["NUMERICS_VERSION", "EngineError", "Problem", "Progress", "Result", "solve"]
