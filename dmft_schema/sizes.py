"""The sizes of a dataset: all that is known of it where its arrays are elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dmft_schema.shapes import VECTORS, Shape


@dataclass(frozen=True)
class Sizes:
    """Attributes:

    points, test_points, outputs: P, P' and C.
    shape: of one point, without the axis of points.
    target_kinds: what the targets can mean (data.kinds_of_targets).
    """

    points: int
    test_points: int
    outputs: int
    shape: Shape = VECTORS
    target_kinds: Sequence[str] = ()

    @property
    def all_points(self) -> int:
        return self.points + self.test_points

    def described(self) -> dict[str, Any]:
        """As JSON has it, for `of_description`."""
        description: dict[str, Any] = {
            "points": self.points,
            "test_points": self.test_points,
            "outputs": self.outputs,
            "target_kinds": list(self.target_kinds),
        }
        if self.shape.inputs:
            description["shape"] = [*self.shape.positions, self.shape.inputs]
        return description

    @classmethod
    def of_description(cls, description: Mapping[str, Any]) -> Sizes:
        """What `described` gave, this version's or an earlier one's, which knew no positions."""
        *positions, inputs = description.get("shape", [0])
        return cls(
            description["points"],
            description["test_points"],
            description["outputs"],
            Shape(tuple(positions), inputs),
            description["target_kinds"],
        )
