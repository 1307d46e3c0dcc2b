"""One class for each method. One entry in METHODS adds one."""

from __future__ import annotations

from typing import Any

from dmft_engine.methods.alternating import Alternating
from dmft_engine.methods.dmft import Dmft
from dmft_engine.methods.finite_width import FiniteWidth
from dmft_engine.methods.gradient_independence import GradientIndependence
from dmft_engine.methods.linear import Linear
from dmft_engine.methods.method import Method
from dmft_engine.methods.perturbation import Perturbation
from dmft_engine.methods.static_ntk import LazyLimit, StaticNtk
from dmft_engine.problem import Problem

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
