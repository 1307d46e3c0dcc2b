"""The pieces that networks are composed of: one small model each, with the shape that it makes of a shape.

A block maps what one point carries (shapes.py) to what it carries next; docs/networks.md has the equations.
Every class here is listed in BLOCKS by its name; a subclass of Block defined anywhere else joins them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import Annotated, Any, ClassVar, Literal, Union, get_args

from pydantic import Field, SerializeAsAny, ValidationInfo, WrapValidator
from pydantic_core import PydanticCustomError

from dmft_schema import limits
from dmft_schema.base import StrictModel
from dmft_schema.names import ActivationName, NormaliseName, PaddingName, PositionsName, ScoresName
from dmft_schema.shapes import Shape, ShapeError

Scale = Annotated[float, Field(gt=0, le=limits.MAX_SCALE)]
BiasScale = Annotated[float, Field(ge=0, le=limits.MAX_SCALE)]

BLOCKS: dict[str, type[Block]] = {}
"""Name in JSON -> the block's model."""

ENTRY_POINTS = "dmft.blocks"
"""Group of the entry points by which other packages name theirs."""


class Block(StrictModel):
    """A piece of forward pass.

    A subclass names itself by a field `block` of one literal string, and says in `shape_after` what it makes
    of a shape.

    Attributes:
        block: its name in JSON.
    """

    block: str

    needs_neurons: ClassVar[bool] = True
    """Whether it stands only behind a block that makes neurons."""

    bears_weights: ClassVar[bool] = False
    """Whether it is a layer, whose kernels are kept: phi_l is what the layer after layer l takes, g_l the
    gradient of what layer l makes."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        names = get_args(cls.model_fields["block"].annotation)
        if len(names) == 1:
            BLOCKS[names[0]] = cls

    def shape_after(self, shape: Shape) -> Shape:
        """The shape that it makes of `shape`, which has neurons if the block needs them.

        Raises:
            ShapeError: it cannot take it.
        """
        return shape

    def forward(self, x: Any) -> Any:
        """Of a block from outside the package that has no weights: what it makes of a field.

        Args:
            x: a torch tensor [R, P, *positions, S]: replicas, points, positions and neurons.

        Returns:
            The same of the positions that `shape_after` says, by operations that autograd knows.
        """
        raise NotImplementedError(f"block {self.block} is none of the engine's, and has no forward pass")

    def matrices(self, axes: int) -> int:
        """Matrices that it has where points have positions along so many axes, inner blocks' aside."""
        return int(self.bears_weights)

    @property
    def parts(self) -> dict[str, list[Block]]:
        """Field -> the blocks that it holds."""
        return {}


class DenseBlock(Block):
    """W x / sqrt(fan-in) at each position, the same W at all of them."""

    block: Literal["dense"] = "dense"
    weight_scale: Scale = Field(1.0, description="sigma_w: W is of unit variance, times this.")
    bias_scale: BiasScale = Field(0.0, description="sigma_b of a trained bias of unit variance; 0: none.")

    needs_neurons: ClassVar[bool] = False
    bears_weights: ClassVar[bool] = True

    def shape_after(self, shape: Shape) -> Shape:
        return shape.of_neurons()


class ConvolutionBlock(Block):
    """sum_b W_b x_{stride a + b} / sqrt(fan-in k^d) over the k^d offsets b of the filter (theory section 9).

    Offsets run from -floor((k - 1) / 2), as torch.nn's. "same" pads with zeros and "circular" with the other
    end: ceil(n / stride) positions are left of n; of "valid", floor((n - k) / stride) + 1.
    """

    block: Literal["convolution"] = "convolution"
    size: int = Field(3, ge=1, le=limits.MAX_FILTER, description="k: the filter is k long, or k x k.")
    stride: int = Field(1, ge=1, le=limits.MAX_FILTER)
    padding: PaddingName = "same"
    weight_scale: Scale = Field(1.0, description="sigma_w: the W_b are of unit variance, times this.")
    bias_scale: BiasScale = Field(0.0, description="sigma_b of a trained bias of unit variance; 0: none.")

    needs_neurons: ClassVar[bool] = False
    bears_weights: ClassVar[bool] = True

    def shape_after(self, shape: Shape) -> Shape:
        if not shape.positions:
            raise ShapeError(f"a convolution needs positions, [times, D] or [H, W, C]; it got {shape}")
        matrices = self.size ** len(shape.positions)
        if shape.is_population and matrices > limits.MAX_FILTER_OFFSETS:
            raise ShapeError(
                f"a filter of size {self.size} between neurons, {shape}, has {matrices} matrices (limit: "
                f"{limits.MAX_FILTER_OFFSETS})"
            )
        if self.padding != "same" and self.size > min(shape.positions):
            raise ShapeError(
                f'a filter of size {self.size} with padding "{self.padding}" needs as many positions along '
                f"each axis; it got {shape}"
            )
        inside = self.size - 1 if self.padding == "valid" else 0
        return shape.at(tuple(-(-(n - inside) // self.stride) for n in shape.positions)).of_neurons()

    def forward(self, x: Any) -> Any:
        """Of a block from outside the package that has no weights: what it makes of a field.

        Args:
            x: a torch tensor [R, P, *positions, S]: replicas, points, positions and neurons.

        Returns:
            The same of the positions that `shape_after` says, by operations that autograd knows.
        """
        raise NotImplementedError(f"block {self.block} is none of the engine's, and has no forward pass")

    def matrices(self, axes: int) -> int:
        return self.size**axes


class ActivationBlock(Block):
    """phi, neuron by neuron."""

    block: Literal["activation"] = "activation"
    name: ActivationName = "tanh"


class NormaliseBlock(Block):
    """h / sqrt(<h^2>), of kind layer with <h> taken off first; averages over neurons (theory section 11)."""

    block: Literal["normalise"] = "normalise"
    kind: NormaliseName = "layer"
    learned: bool = Field(
        False, description="Whether a gain, and of kind layer an offset, of each neuron are trained."
    )


class PoolBlock(Block):
    """Means over windows of `size` positions along each axis, side by side; what fills none is left out."""

    block: Literal["pool"] = "pool"
    kind: Literal["mean"] = "mean"
    size: int = Field(2, ge=1, le=limits.MAX_FILTER, description="Positions of a window along each axis.")

    def shape_after(self, shape: Shape) -> Shape:
        if not shape.positions or self.size > min(shape.positions):
            raise ShapeError(
                f"a pool of size {self.size} needs as many positions along each axis; it got {shape}"
            )
        return shape.at(tuple(n // self.size for n in shape.positions))


class AttentionBlock(Block):
    """Softmax attention between positions with infinitely many heads, and an output matrix (section 12)."""

    block: Literal["attention"] = "attention"
    head_size: int = Field(2, ge=1, le=limits.MAX_HEAD_SIZE, description="d, neurons of a head.")
    scores: ScoresName = Field("sqrt", description="sqrt: q.k / sqrt(d). linear: q.k / d.")
    causal: bool = Field(False, description="Positions attend to none that come after them.")

    bears_weights: ClassVar[bool] = True

    def shape_after(self, shape: Shape) -> Shape:
        if not shape.positions:
            raise ShapeError(f"attention needs positions, [times, D] or [H, W, C]; it got {shape}")
        if self.causal and len(shape.positions) > 1:
            raise ShapeError(f"causal attention needs positions in one order, [times, N]; it got {shape}")
        return shape

    def forward(self, x: Any) -> Any:
        """Of a block from outside the package that has no weights: what it makes of a field.

        Args:
            x: a torch tensor [R, P, *positions, S]: replicas, points, positions and neurons.

        Returns:
            The same of the positions that `shape_after` says, by operations that autograd knows.
        """
        raise NotImplementedError(f"block {self.block} is none of the engine's, and has no forward pass")

    def matrices(self, axes: int) -> int:
        return 4


class ResidualBlock(Block):
    """h + scale * branch(h)."""

    block: Literal["residual"] = "residual"
    branch: list[AnyBlock] = Field(min_length=1, max_length=limits.MAX_LAYERS)
    scale: float = Field(1.0, gt=0, le=limits.MAX_SCALE)

    def shape_after(self, shape: Shape) -> Shape:
        after = shapes_through(self.branch, shape, "branch")[-1]
        if after != shape:
            raise ShapeError(f"a residual branch must keep its shape; it makes {after} of {shape}")
        return shape

    @property
    def parts(self) -> dict[str, list[Block]]:
        return {"branch": list(self.branch)}


class RecurrenceBlock(Block):
    """h_tau = sigma_w W phi(h_{tau-1}) / sqrt(N) + x_tau, h_0 = 0, for x_1 to x_end (theory section 10).

    First in a network, it takes the data through a dense block of its own: x_tau = U input_tau / sqrt(D).
    """

    block: Literal["recurrence"] = "recurrence"
    activation: ActivationName = "tanh"
    weight_scale: Scale = Field(1.0, description="sigma_w: W is of unit variance, times this.")

    needs_neurons: ClassVar[bool] = False
    bears_weights: ClassVar[bool] = True

    def shape_after(self, shape: Shape) -> Shape:
        if len(shape.positions) != 1:
            raise ShapeError(f"a recurrence needs a sequence, [times, D]; it got {shape}")
        return shape.of_neurons()


class ReadoutBlock(Block):
    """f, from all positions; the last block (theory section 9).

    mean: w . mean_a x_a. flatten: sum_a w_a . x_a / sqrt(A). last: w . x_A. All over gamma0 N; without
    positions they are the same.
    """

    block: Literal["readout"] = "readout"
    positions: PositionsName = "mean"
    weight_scale: Scale = Field(1.0, description="sigma_w: w is of unit variance, times this.")

    def shape_after(self, shape: Shape) -> Shape:
        if self.positions == "last" and len(shape.positions) > 1:
            raise ShapeError(f'a readout of the "last" position needs a sequence, [times, N]; it got {shape}')
        return shape.at(())


@cache
def from_other_packages() -> None:
    """Import the blocks that installed packages name, so that they are among BLOCKS."""
    for point in entry_points(group=ENTRY_POINTS):
        point.load()


def _by_name(value: Any, handler: Any, info: ValidationInfo) -> Any:
    """The block that `value` names, of this package or another: places in errors then name no union."""
    if isinstance(value, Block):
        return value
    if not isinstance(value, dict):
        raise PydanticCustomError("block", 'must be an object such as {"block": "dense"}')
    name = value.get("block")
    if isinstance(name, str) and name not in BLOCKS:
        from_other_packages()
    model = BLOCKS.get(name) if isinstance(name, str) else None
    if model is None:
        known = ", ".join(sorted(BLOCKS))
        raise PydanticCustomError(
            "block", "its block must be one of {known}; got {name}", {"known": known, "name": repr(name)[:50]}
        )
    return model.model_validate(value, context=info.context)


AnyBlock = Annotated[
    SerializeAsAny[
        Annotated[
            Union[
                DenseBlock,
                ConvolutionBlock,
                ActivationBlock,
                NormaliseBlock,
                PoolBlock,
                AttentionBlock,
                "ResidualBlock",
                RecurrenceBlock,
                ReadoutBlock,
            ],
            Field(discriminator="block"),
        ]
    ],
    WrapValidator(_by_name),
]
ResidualBlock.model_rebuild()


def walk(blocks: Sequence[Block], *place: str | int) -> Iterator[tuple[tuple[str | int, ...], Block]]:
    """All blocks, those inside others after them, each with its place."""
    for index, block in enumerate(blocks):
        yield (*place, index), block
        for field, inner in block.parts.items():
            yield from walk(inner, *place, index, field)


def shapes_through(blocks: Sequence[Block], shape: Shape, *place: str | int) -> list[Shape]:
    """The shapes that blocks make of `shape`: itself, and one after each block.

    Raises:
        ShapeError: a block cannot take what comes to it; the error has its place.
    """
    shapes = [shape]
    for index, block in enumerate(blocks):
        before = shapes[-1]
        try:
            if block.needs_neurons and not before.is_population:
                raise ShapeError(
                    f"block {block.block} needs neurons, [.., N], and got the data, {before}: put a dense or "
                    "a convolution before it"
                )
            shapes.append(block.shape_after(before))
        except ShapeError as error:
            raise error.under(*place, index) from None
    return shapes
