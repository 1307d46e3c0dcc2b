"""The state of a solve as something to keep: what it belongs to, and what may go on from it.

A state goes on with the problem that it was taken from, or with the same problem and more steps. Everything
else is refused, for its numbers would be those of neither.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from dmft_engine.errors import EngineError
from dmft_engine.methods.method import StartOver
from dmft_engine.problem import Problem
from dmft_engine.state import State
from dmft_schema.numerics import NUMERICS_VERSION

MAY_CHANGE = {"training": {"steps"}, "method": {"max_iterations"}, "outputs": {"kernel_times", "field_times"}}
"""Section -> what a problem that goes on may have otherwise; times are compared as the steps they name."""


class CannotResume(EngineError):
    """A state is not one of this problem, or of this version of the engine."""


def identity(problem: Problem) -> dict[str, Any]:
    """What a state belongs to: plain values, all that its numbers hang on."""
    sections: dict[str, Any] = {
        name: getattr(problem, name).model_dump(mode="json")
        for name in ("network", "training", "method", "outputs")
    }
    sections["data"] = {"content": _digest(problem)}
    sections["kept"] = {"kernel_steps": problem.kernel_steps.tolist(), "field_steps": problem.field_steps}
    return {"numerics": NUMERICS_VERSION, "sections": sections}


def is_longer(problem: Problem, state: State) -> bool:
    """Whether a problem has more steps than that whose state this is.

    Raises:
        CannotResume: they differ in more than that; the message names what.
    """
    own, kept = identity(problem), state["identity"]
    if own["numerics"] != kept["numerics"]:
        raise CannotResume(
            f"this state is of version {kept['numerics']} of the engine's numbers, which now are version "
            f"{own['numerics']}: begin the solve anew"
        )
    for section, fields in own["sections"].items():
        if section == "kept":
            continue
        for field in fields.keys() | kept["sections"][section].keys():
            now, before = fields.get(field), kept["sections"][section].get(field)
            may_change = field in MAY_CHANGE.get(section, ()) or _now_named(section, field, before)
            if now != before and not may_change:
                what = "the data" if section == "data" else f"{section}.{field} {now!r}, not {before!r}"
                raise CannotResume(f"this state is of another problem: the one given has {what}")
    before, now = (sections["training"]["steps"] for sections in (kept["sections"], own["sections"]))
    if now < before or _fewer_iterations(own["sections"], kept["sections"]):
        raise CannotResume(
            f"this state is of a run of {before} steps: what goes on from it cannot have fewer ({now}), nor "
            "fewer method.max_iterations"
        )
    if now == before and own["sections"]["kept"] != kept["sections"]["kept"]:
        raise CannotResume(
            "this state is of another problem: outputs names other kernel_times or field_times"
        )
    return bool(now > before)


def check_longer(problem: Problem, state: State) -> None:
    """Look whether what was recorded is what the longer run would have recorded so far.

    Raises:
        StartOver: it is not.
    """
    kept = state["identity"]["sections"]
    steps = kept["training"]["steps"]
    if problem.training.schedule != "constant":
        raise StartOver(f"every rate of schedule {problem.training.schedule} hangs on the number of steps")
    own = identity(problem)["sections"]["kept"]
    for name, times in own.items():
        if [time for time in times if time < steps] != kept["kept"][name]:
            field = name.replace("steps", "times")
            raise StartOver(
                f"outputs.{field} must name the steps that were kept before, {kept['kept'][name]}, and no "
                f"others below {steps} (negative ones count from the end)"
            )


def _now_named(section: str, field: str, before: Any) -> bool:
    """Whether a method chose the number of its samples itself: it knows whether it is the one now named."""
    return (section, field) == ("method", "samples") and before is None


def _fewer_iterations(own: dict[str, Any], kept: dict[str, Any]) -> bool:
    now, before = (sections["method"].get("max_iterations", 0) for sections in (own, kept))
    return bool(now < before)


def _digest(problem: Problem) -> str:
    """SHA-256 of all that the theory knows of the data."""
    data = problem.data
    digest = hashlib.sha256(f"{data.points} {data.outputs} {data.scalar_output} {data.notes}".encode())
    for array in (data.kernel, data.targets, data.test_targets):
        digest.update(b"none" if array is None else np.ascontiguousarray(array, np.float64).tobytes())
    return digest.hexdigest()
