"""What a block is made of, and what it makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor

from dmft_engine.populations.node import Node
from dmft_engine.weights.builder import Builder, Neurons
from dmft_schema.shapes import Shape


@dataclass(frozen=True)
class Signal:
    """What passes between two blocks: a field [R, rows, S], rows being points at positions.

    Attributes:
        shape: positions, and whether there are neurons at them or the data.
        neurons: whose field it is; None of the data.
        exit: the node where gradients of this very field pass, for blocks that hand them on as they are.
    """

    shape: Shape
    neurons: Neurons | None
    exit: Node | None = None

    @property
    def positions(self) -> int:
        """A, rows of each point."""
        return self.shape.count

    @property
    def population(self) -> Neurons:
        """The neurons, where there are some."""
        assert self.neurons is not None, "the first block makes neurons"
        return self.neurons


class Block(Protocol):
    """A piece of forward pass over nodes and matrices, made once for a solve.

    Attributes:
        makes_neurons: whether its output's neurons are others than its input's.
        outgoing: what it makes.
    """

    makes_neurons: ClassVar[bool]
    outgoing: Signal

    def __init__(self, model: Any, builder: Builder, incoming: Signal, into: Neurons | None) -> None:
        """
        Args:
            model: what the request says of it (dmft_schema/blocks.py).
            builder: makes its neurons, nodes, matrices and vectors.
            incoming: what it takes.
            into: the neurons that its output must belong to, if it makes any.
        """

    def forward(self, x: Tensor) -> Tensor:
        """[R, rows, S] -> [R, rows', S'], by autograd's rules. The data, which only some blocks take, are a
        tensor without entries."""
