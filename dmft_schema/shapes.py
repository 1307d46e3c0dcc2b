"""The shape of what one point carries through a network: its positions, and a vector at each of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

NEURONS = "N"


@dataclass(frozen=True)
class Shape:
    """What stands at one place of a network for one point.

    Attributes:
        positions: () for a plain vector, (times,) of a sequence, (height, width) of an image.
        inputs: dimensions of the vector at each position where it holds the data's own numbers; None where it
            holds the N neurons of a population; 0 where it holds numbers known only by their kernel.
    """

    positions: tuple[int, ...] = ()
    inputs: int | None = None

    @property
    def count(self) -> int:
        """Positions, A: rows that a point takes."""
        return math.prod(self.positions)

    @property
    def is_population(self) -> bool:
        """Whether the vectors are neurons."""
        return self.inputs is None

    def __str__(self) -> str:
        """As users write it, without the axis of points: [8, 8, 1], [20, N], [N]."""
        vector = NEURONS if self.inputs is None else str(self.inputs or "D")
        return f"[{', '.join([*map(str, self.positions), vector])}]"

    def of_neurons(self) -> Shape:
        """The same positions with neurons at each."""
        return replace(self, inputs=None)

    def at(self, positions: tuple[int, ...]) -> Shape:
        """The same vectors at other positions."""
        return replace(self, positions=positions)


VECTORS = Shape((), 0)
"""Of points known only by their kernel."""


class ShapeError(ValueError):
    """A network, or a block of one, cannot take a shape.

    Attributes:
        place: where the block stands, as in `layers.3.branch.0`.
    """

    def __init__(self, message: str, place: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.place = place

    def under(self, *place: str | int) -> ShapeError:
        """The same of a block that stands further down."""
        return ShapeError(self.message, (*place, *self.place))
