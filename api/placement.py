"""Which live workers could take a solve: what is admitted, and whose numbers its hashes are made for."""

from __future__ import annotations

from api.problems import Problem
from dmft_schema.memory import Demand, in_gigabytes, memory_bytes, shortage
from dmft_schema.numerics import NUMERICS_VERSION
from jobs.settings import Settings
from jobs.workers import Crew, WorkerFacts, numerics_class


def place(demand: Demand, method: str, crew: Crew, settings: Settings) -> list[str]:
    """The classes of workers that could take a solve, those with the most slots first.

    Where nobody is known to live, the limits of the API's own settings hold, and the solve waits.

    Raises:
        Problem: no live worker could take it; or it is beyond the API's own limits, where none is known.
    """
    if not crew.all_known:
        lacking = shortage(demand, settings.solve_bytes)
        if lacking is not None:
            raise Problem(422, "would_not_fit", f"{lacking.message}. {lacking.advice}")
        return [numerics_class(NUMERICS_VERSION, settings.device)]
    needed = memory_bytes(demand)
    able = [worker for worker in crew.facts if worker.takes(method, needed)]
    if not able:
        raise _nobody(demand, method, crew)
    slots: dict[str, int] = {}
    for worker in able:
        slots[worker.numerics_class] = slots.get(worker.numerics_class, 0) + worker.slots
    return sorted(slots, key=lambda one: (-slots[one], one))


def _nobody(demand: Demand, method: str, crew: Crew) -> Problem:
    knowing = [worker for worker in crew.facts if worker.takes(method, None)]
    if not knowing:
        known = ", ".join(sorted({name for worker in crew.facts for name in worker.methods})) or "none"
        message = f"no live worker of this server knows the method {method}; they know {known}"
        return Problem(422, "method_unavailable", message)
    roomiest = max(knowing, key=lambda worker: worker.memory_bytes)
    lacking = shortage(demand, roomiest.memory_bytes)
    assert lacking is not None
    return Problem(
        422, "would_not_fit", f"{lacking.message}{_of(roomiest, knowing)}. {lacking.advice}{_TO_THE_OPERATOR}"
    )


_TO_THE_OPERATOR = (
    " Or ask the server's operator for a worker that gives a solve more memory (DMFT_MEMORY_GB, or fewer "
    "DMFT_WORKERS side by side)."
)


def _of(roomiest: WorkerFacts, others: list[WorkerFacts]) -> str:
    whose = f"on {roomiest.device}, {roomiest.slots} side by side"
    if len(others) == 1:
        return f": it is what the live worker gives one solve ({whose})"
    least = min(worker.memory_bytes for worker in others)
    return (
        f": it is what the roomiest of {len(others)} live workers gives one solve ({whose}); "
        f"the others from {in_gigabytes(least)}"
    )
