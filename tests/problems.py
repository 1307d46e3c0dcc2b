"""A catalogue of problems with known answers: the problem, the truth, the tolerance and why.

LINEAR_L5 and TANH_L3 are the problems of theory section 7. Their kernels come from a seed, so that
nothing but a few numbers has to be kept here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from dmft_engine import Problem, Result, solve
from dmft_schema import SolveRequest

DATA = Path(__file__).parent / "data"


def request(data: dict[str, Any], **sections: Any) -> SolveRequest:
    return SolveRequest.model_validate({"data": data, **sections})


def run(data: dict[str, Any], **sections: Any) -> Result:
    """Solve in this process; the result must be a success."""
    result = solve(Problem.from_request(request(data, **sections)))
    assert result.error is None, result.error
    return result


def stored(name: str) -> dict[str, Any]:
    """A reference problem kept in tests/data, as the sections of a request."""
    kept = reference(name)
    return {
        "data": {"kernel": kept["kernel"], "targets": kept["targets"]},
        "network": {k: kept[k] for k in ("depth", "activation", "gamma0")},
        "training": {k: kept[k] for k in ("learning_rate", "steps")},
    }


def reference(name: str) -> dict[str, Any]:
    """A problem kept in tests/data with the answers of solvers that are not part of this repository."""
    kept: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
    return kept


def sphere(points: int, dimension: int, seed: int = 0) -> dict[str, Any]:
    """Points on the sphere |x|^2 = D with random signs as targets, as a request's data."""
    generator = np.random.default_rng(seed)
    inputs = generator.normal(size=(points, dimension))
    inputs *= np.sqrt(dimension) / np.linalg.norm(inputs, axis=1, keepdims=True)
    return {"inputs": inputs.tolist(), "targets": np.sign(generator.normal(size=points)).tolist()}
