"""Which networks have kernels at t = 0 that are averages known one by one, and how many entries they take.

A kernel passes through an activation if the field there is Gaussian, and through a sum if its terms share no
weights neuron by neuron (theory sections 5 and 8 to 12). Whatever else a block may be, dense networks and
their limit by dmft take it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dmft_schema import limits
from dmft_schema.blocks import (
    ActivationBlock,
    AttentionBlock,
    Block,
    ConvolutionBlock,
    DenseBlock,
    NormaliseBlock,
    PoolBlock,
    ReadoutBlock,
    RecurrenceBlock,
    ResidualBlock,
    walk,
)
from dmft_schema.shapes import Shape

Place = tuple[str | int, ...]

INSTEAD = "put a dense or a convolution before it, or use dmft with a small gamma0"


class NotClosed(ValueError):
    """Kernels at t = 0 do not close.

    Attributes:
        place: of the block at which, as in `layers.3.branch.0`.
    """

    def __init__(self, message: str, place: Place) -> None:
        super().__init__(message)
        self.message = message
        self.place = place


@dataclass(frozen=True)
class _Field:
    """What stands between two blocks.

    Attributes:
        gaussian: whether neurons are jointly Gaussian at all rows, with one tangent kernel for all of them.
        made_by: places of the weights that each neuron has of its own in it.
    """

    gaussian: bool
    made_by: frozenset[Place]


def check_closed(blocks: Sequence[Block], *place: str | int) -> None:
    """Refuse a network, from the data to its readout, whose kernels at t = 0 do not close.

    Raises:
        NotClosed: naming the first block at which they do not.
    """
    _through(blocks, _Field(True, frozenset()), place)


def _through(blocks: Sequence[Block], field: _Field, place: Place) -> _Field:
    for index, block in enumerate(blocks):
        field = _after(block, field, (*place, index))
    return field


def _after(block: Block, field: _Field, place: Place) -> _Field:
    match block:
        case DenseBlock() | ConvolutionBlock() | AttentionBlock():
            return _Field(True, frozenset({place}))
        case ActivationBlock():
            return field if block.name == "linear" else _activated(field, place)
        case RecurrenceBlock():
            if not field.gaussian:
                raise NotClosed(
                    "a recurrence here adds to its states what is not Gaussian, and kernels at t = 0 do not "
                    f"close; {INSTEAD}",
                    place,
                )
            return replace(field, made_by=field.made_by | {place})
        case NormaliseBlock():
            # A trained gain moves each neuron by its own field.
            return replace(field, gaussian=field.gaussian and not block.learned)
        case ResidualBlock():
            branch = _through(block.branch, field, (*place, "branch"))
            if branch.made_by & field.made_by:
                raise NotClosed(
                    "this branch has no dense, convolution or attention after which its neurons are "
                    "independent of the stream's, and kernels at t = 0 do not close; put one into it, or use "
                    "dmft with a small gamma0",
                    place,
                )
            return _Field(field.gaussian and branch.gaussian, field.made_by | branch.made_by)
        case PoolBlock() | ReadoutBlock():
            return field
    raise NotClosed(f"no kernels at t = 0 are known of block {block.block}; use dmft", place)


def _activated(field: _Field, place: Place) -> _Field:
    if not field.gaussian:
        raise NotClosed(
            "this activation acts on a field that is not Gaussian (an activation or a trained gain came "
            f"before it, and no dense or convolution since), and kernels at t = 0 do not close; {INSTEAD}",
            place,
        )
    return replace(field, gaussian=False)


def mixes_positions(block: Block) -> bool:
    """Whether what it makes of equal positions depends on kernels between unequal ones."""
    match block:
        case PoolBlock():
            return block.size > 1
        case ReadoutBlock():
            return block.positions == "mean"
        case AttentionBlock():
            return True
    return any(mixes_positions(inner) for part in block.parts.values() for inner in part)


def is_sampled(blocks: Sequence[Block]) -> bool:
    """Whether kernels at t = 0 are means over samples: those of attention are."""
    return any(isinstance(block, AttentionBlock) for _, block in walk(blocks))


MIXTURES = ("tanh", "softplus")
"""Activations whose averages are sums over the nodes of a rule, not closed forms."""

MIXTURE_COST = 8
"""What such an average takes, over what a closed form takes (measured)."""

COPIES = 6
"""Numbers that each block of a network keeps for an entry of its kernels."""

PORTION = 1 << 25
"""Numbers kept for as many pairs of points as are worked on together, at least one."""

SAMPLED_REPLICAS = 8
"""Independent draws of kernels that are sampled."""


@dataclass(frozen=True)
class KernelEntries:
    """What the kernels of a network at t = 0 consist of.

    Attributes:
        positions: most that a point has anywhere.
        of_pair: entries of a kernel between two points: positions^2, or positions where all that follows
            needs equal ones alone.
        averages: averages over Gaussian pairs that a pair of points takes, those of mixtures by their cost.
        blocks: how many the network has, inner ones included.
        sampled: whether all rows are needed at once, for sampling.
    """

    positions: int = 1
    of_pair: int = 1
    averages: int = 0
    blocks: int = 1
    sampled: bool = False

    @classmethod
    def of(cls, blocks: Sequence[Block], shapes: Sequence[Shape]) -> KernelEntries:
        """Of a network's blocks and the shapes before, between and behind them."""
        every = [block for _, block in walk(blocks)]
        positions = max(shape.count for shape in shapes)
        mixes = positions > 1 and any(mixes_positions(block) for block in every)
        of_pair = positions**2 if mixes else positions
        names = [block.name for block in every if isinstance(block, ActivationBlock)]
        names += [block.activation for block in every if isinstance(block, RecurrenceBlock)]
        cost = sum(MIXTURE_COST if name in MIXTURES else 1 for name in names)
        return cls(positions, of_pair, of_pair * cost, len(every), is_sampled(blocks))

    @property
    def pairs_together(self) -> int:
        """Pairs of points that are worked on together, where they need not be all."""
        return max(1, PORTION // (COPIES * self.blocks * self.of_pair))

    def held(self, points: int) -> float:
        """Numbers that are held while kernels between so many points are made."""
        pair = COPIES * self.blocks * self.of_pair
        if not self.sampled:
            return float(max(PORTION, pair))
        return points * (points + 1) / 2 * pair + 12 * (points * self.positions) ** 2 + PORTION

    def check(self, points: int) -> None:
        """Refuse more points than can be done in reasonable time.

        Raises:
            ValueError: with how many can.
        """
        if self.sampled and points * self.positions > limits.MAX_SAMPLED_ROWS:
            raise ValueError(
                "kernels of attention at t = 0 are sampled for all rows together: points x positions = "
                f"{points * self.positions} (limit: {limits.MAX_SAMPLED_ROWS}); "
                + _points_that_fit(limits.MAX_SAMPLED_ROWS // self.positions)
            )
        averages = points * (points + 1) // 2 * self.averages
        if self.positions > 1 and averages > limits.MAX_KERNEL_AVERAGES:
            most = int((2 * limits.MAX_KERNEL_AVERAGES / self.averages + 0.25) ** 0.5 - 0.5)
            raise ValueError(
                f"kernels at t = 0 between all positions of {points} points take {averages:.2g} Gaussian "
                f"averages, tanh and softplus counted {MIXTURE_COST} times "
                f"(limit: {limits.MAX_KERNEL_AVERAGES:.2g}); " + _points_that_fit(most)
            )


def _points_that_fit(most: int) -> str:
    if most < 1:
        return "use fewer positions, or dmft with a small gamma0"
    return f"use at most {most} points, training and test together, fewer positions, or dmft"
