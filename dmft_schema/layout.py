"""What a network of blocks holds for each point: populations, the matrices between them, and rows.

Populations and matrices are counted as the engine makes them: a branch's last neurons are the stream's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dmft_schema.blocks import AttentionBlock, Block, RecurrenceBlock, ResidualBlock, shapes_through
from dmft_schema.network import BaseNetwork, LayeredNetwork
from dmft_schema.shapes import Shape

ROUGHNESS = 2.5
"""Directions that fields visit, over those of as many layers of a filter, where a matrix acts again and again
or neurons meet in a softmax. Measured as the exponent below, on the networks of 10 to 100 rows of
tests/data/reach.json."""

SIMILARITY = 0.8
"""Exponent of positions that directions grow with: those of one point share most of theirs."""


@dataclass(frozen=True)
class Link:
    """A matrix between two populations, or one for each offset of a filter.

    Attributes:
        source, target: populations by number; source is None for the data.
        rows_in, rows_out: of a point.
        matrices: as many as a filter has offsets.
        inputs: dimensions that it reads the data with.
        own_exit: whether gradients come back to it at a place of its own.
    """

    source: int | None
    target: int
    rows_in: int
    rows_out: int
    matrices: int = 1
    inputs: int = 0
    own_exit: bool = True


@dataclass
class Layout:
    """Attributes:

    links: all matrices but the readout's.
    populations: how many there are.
    rows: of a point, over all fields that one pass makes.
    scores: numbers of all attention's scores, for a point and a neuron.
    last: rows of a point that are read out.
    roughness: over the directions of a network of filters.
    layers: the links' blocks, L.
    group: neurons that come together.
    """

    links: list[Link] = field(default_factory=list)
    populations: int = 0
    rows: int = 0
    scores: float = 0.0
    last: int = 1
    roughness: float = 1.0
    layers: int = 0
    group: int = 1

    @classmethod
    def of(cls, network: BaseNetwork, shape: Shape) -> Layout | None:
        """That of a network for points of a shape; None of an mlp or residual network."""
        if isinstance(network, LayeredNetwork):
            return None
        layout = cls(layers=network.recorded, group=network.group)
        if network.uses(AttentionBlock, RecurrenceBlock):
            layout.roughness = ROUGHNESS
        *body, _ = network.blocks
        shapes = network.check_shape(shape)
        layout._add(body, shapes[:-1], None, None)
        layout.last = shapes[-2].count
        return layout

    @property
    def most_rows(self) -> int:
        """Of a point, at the matrix that has most."""
        return max(max(link.rows_in, link.rows_out) for link in self.links)

    @property
    def matrices(self) -> int:
        """Those between neurons."""
        return sum(link.matrices for link in self.links if link.source is not None)

    def _new(self) -> int:
        self.populations += 1
        return self.populations - 1

    def _add(
        self, blocks: Sequence[Block], shapes: Sequence[Shape], source: int | None, into: int | None
    ) -> None:
        """Count a chain of blocks behind a population; its last neurons are those of `into`, if given."""
        makers = [i for i, block in enumerate(blocks) if _makes_neurons(block)]
        for index, block in enumerate(blocks):
            before, after = shapes[index], shapes[index + 1]
            self.rows += after.count
            if isinstance(block, ResidualBlock):
                assert source is not None, "only neurons have branches"
                self._add(block.branch, shapes_through(block.branch, before), source, source)
            elif isinstance(block, AttentionBlock):
                assert source is not None, "only neurons attend"
                source = self._attention(block, before, source, into if index == makers[-1] else None)
            elif isinstance(block, RecurrenceBlock):
                assert source is not None, "only neurons recur"
                previous = blocks[index - 1] if index else None
                own_exit = not (previous and previous.bears_weights)
                self.links.append(Link(source, source, after.count, after.count, own_exit=own_exit))
            elif block.bears_weights:
                own = into if into is not None and index == makers[-1] else self._new()
                matrices = block.matrices(len(before.positions))
                inputs = 0 if source is not None else (before.inputs or 0) * matrices
                self.links.append(Link(source, own, before.count, after.count, matrices, inputs))
                source = own

    def _attention(self, block: AttentionBlock, shape: Shape, stream: int, into: int | None) -> int:
        heads, own = self._new(), into if into is not None else self._new()
        rows = shape.count
        self.links += [Link(stream, heads, rows, rows)] * 3 + [Link(heads, own, rows, rows)]
        self.rows += 4 * rows
        self.scores += 2 * rows**2 / block.head_size
        return own


def _makes_neurons(block: Block) -> bool:
    return block.bears_weights and not isinstance(block, RecurrenceBlock)


def spread(positions: int) -> float:
    """Directions of a point's rows over those of one row."""
    return float(positions**SIMILARITY)
