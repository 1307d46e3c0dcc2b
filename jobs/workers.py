"""Live workers, and what they say of themselves: in Redis, under a lease that they renew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from dmft_schema.memory import in_gigabytes


class WorkerFacts(BaseModel):
    """What a worker announces.

    Attributes:
        device: torch device of its solvers, such as cpu or cuda:1.
        memory_bytes: what one of its solves may take, on that device.
        slots: solves side by side.
        methods: names of those that its engine knows.
        numerics: NUMERICS_VERSION of its engine.
        torch: its version.
        version: of this service.
        host: where it runs; for the operator, not for users.
        pid: its process there.
    """

    device: str
    memory_bytes: float
    slots: int
    methods: list[str]
    numerics: str
    torch: str = ""
    version: str = ""
    host: str = ""
    pid: int = 0

    @property
    def numerics_class(self) -> str:
        """Workers of one class give the same numbers, as far as reuse of results goes."""
        return numerics_class(self.numerics, self.device)

    def takes(self, method: str | None, memory_bytes: float | None) -> bool:
        """Whether it can take a solve by this method, of this size."""
        return (method is None or method in self.methods) and (memory_bytes or 0.0) <= self.memory_bytes

    def for_users(self) -> dict[str, Any]:
        """What any user may know of it: what it can take, not where it is."""
        shown = self.model_dump(include={"device", "slots", "methods", "numerics", "torch", "version"})
        return {**shown, "memory_gb": round(self.memory_bytes / 1e9, 1)}


def numerics_class(numerics: str, device: str) -> str:
    """The version of the engine's numbers with the kind of device, as in `4/cuda`."""
    return f"{numerics}/{device.split(':')[0]}"


@dataclass(frozen=True)
class Crew:
    """The live workers.

    Attributes:
        count: how many there are.
        facts: of those that say what they can do; an earlier version's do not.
    """

    count: int
    facts: tuple[WorkerFacts, ...] = ()

    @classmethod
    def read(cls, answer: Sequence[Any]) -> Crew:
        """From what jobs/lua/crew.lua returns."""
        count, *announced = answer
        facts = []
        for text in announced:
            try:
                facts.append(WorkerFacts.model_validate_json(text))
            except ValidationError:  # another version's, with other facts
                continue
        return cls(int(count), tuple(facts))

    @property
    def all_known(self) -> bool:
        """Whether it is known of each what it can do, and there is one at all."""
        return 0 < self.count == len(self.facts)

    def why_none_takes(self, method: str | None, memory_bytes: float | None) -> str | None:
        """Why no live worker can take a solve, in words; None if one can, or it is not known."""
        if not self.all_known or any(worker.takes(method, memory_bytes) for worker in self.facts):
            return None
        knowing = [worker for worker in self.facts if worker.takes(method, None)]
        if not knowing:
            return f"no live worker knows the method {method}"
        most = max(worker.memory_bytes for worker in knowing)
        return (
            f"no live worker has room for it: it needs about {in_gigabytes(memory_bytes or 0.0)}, "
            f"the most that one gives a solve is {in_gigabytes(most)}"
        )
