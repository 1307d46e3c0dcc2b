"""Weight-bearing blocks as kernels see them: the field that one takes, and the gradient of what it makes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from dmft_engine.populations.node import Node
from dmft_engine.weights.parts import Tap


class Site:
    """The place of one weight-bearing block.

    Attributes:
        entry, exit: nodes that see its fields x and g.
        tap: where g passes.
        taken: where the gradient of x passes, if fields are kept.
        x: what the block took, [R, rows, S]; without entries where it took the data.
        h: what it made.
    """

    x: Tensor
    h: Tensor

    def __init__(self, entry: Node, exit: Node, tap: Tap, taken: Tap | None) -> None:
        self.entry = entry
        self.exit = exit
        self.tap = tap
        self.taken = taken

    def enter(self, x: Tensor) -> Tensor:
        """The same field, as the block takes it."""
        self.x = x if self.taken is None or not x.requires_grad else self.taken.mark(x)
        return self.x

    def leave(self, h: Tensor) -> Tensor:
        """The same field, as the block makes it, and where its gradient is g."""
        self.h = self.tap.mark(h)
        return self.h

    def g_coordinates(self) -> list[Tensor]:
        """Of the current g at the exit, [R, rows, k] of each output; shown there first if it was not."""
        return _coordinates(self.exit, self.tap.g.unbind(1))

    def x_coordinates(self) -> list[Tensor]:
        """Of the current x at the entry, the same."""
        return _coordinates(self.entry, [self.x.detach()])


def _coordinates(node: Node, fields: Sequence[Tensor]) -> list[Tensor]:
    if len(node.latest) == len(fields) and node.latest[0].shape[1] == fields[0].shape[1]:
        return node.latest  # A matrix has shown the very same.
    return [node.show(field).coordinates for field in fields]


class Layer:
    """Between two sites: what the second takes, phi, and the gradient of what the first makes, g.

    Attributes:
        below, above: the sites.
    """

    def __init__(self, below: Site, above: Site) -> None:
        self.below = below
        self.above = above

    @property
    def phi(self) -> Node:
        return self.above.entry

    @property
    def g(self) -> Node:
        return self.below.exit

    def coordinates(self, kind: str) -> list[Tensor]:
        """Of the current phi, or of g of each output, [R, rows, k]."""
        return self.above.x_coordinates() if kind == "phi" else self.below.g_coordinates()
