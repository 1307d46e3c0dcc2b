"""Networks that a request can ask for, by `architecture`. Each says what blocks it is made of.

`composed` gives its blocks itself; every other expands to them in its `blocks`.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

from pydantic import Field, ValidationInfo, WrapValidator, model_validator

from dmft_schema import limits
from dmft_schema.base import StrictModel, refused
from dmft_schema.blocks import (
    ActivationBlock,
    AnyBlock,
    AttentionBlock,
    BiasScale,
    Block,
    ConvolutionBlock,
    DenseBlock,
    NormaliseBlock,
    PoolBlock,
    ReadoutBlock,
    RecurrenceBlock,
    ResidualBlock,
    Scale,
    shapes_through,
    walk,
)
from dmft_schema.names import (
    ActivationName,
    NormaliseName,
    PaddingName,
    PositionsName,
    ScoresName,
)
from dmft_schema.shapes import Shape, ShapeError

Gamma0 = Annotated[
    float,
    Field(
        ge=0,
        le=limits.MAX_GAMMA0,
        description="Feature-learning strength; 0 is the lazy (static NTK) limit.",
    ),
]
Depth = Annotated[int, Field(ge=1, le=limits.MAX_DEPTH)]
WeightScales = Annotated[list[Scale], Field(max_length=limits.MAX_DEPTH + 1)]


class BaseNetwork(StrictModel):
    """A network in the mean-field (muP) parameterisation (theory section 1)."""

    if TYPE_CHECKING:  # Fields of each, at the place that they have in JSON.
        architecture: str
        gamma0: float

    def expanded(self) -> list[Block]:
        """The blocks that it is made of, from the data to the readout."""
        raise NotImplementedError

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """`expanded`, with the dense block that brings data to a recurrence."""
        blocks = self.expanded()
        if isinstance(blocks[0], RecurrenceBlock):
            return (DenseBlock(), *blocks)
        return tuple(blocks)

    def check_shape(self, shape: Shape) -> list[Shape]:
        """What each block of `blocks` makes of the data's shape, from that shape on.

        Raises:
            ShapeError: the network cannot take it; the error names a block that the user wrote by its place.
        """
        try:
            return shapes_through(self.blocks, shape)
        except ShapeError as error:
            message = f"architecture {self.architecture} cannot take points of shape {shape}: {error}"
            raise ShapeError(message) from None

    @cached_property
    def all_blocks(self) -> tuple[Block, ...]:
        """`blocks` and those inside others."""
        return tuple(block for _, block in walk(self.blocks))

    def uses(self, *kinds: type[Block]) -> bool:
        """Whether any of its blocks is of one of these kinds."""
        return any(isinstance(block, kinds) for block in self.all_blocks)

    @property
    def recorded(self) -> int:
        """L, the layers whose fields and kernels are kept: the blocks that bear weights, but the readout."""
        return sum(block.bears_weights for block in self.all_blocks)

    def rows_and_matrices(self, shape: Shape) -> tuple[int, int]:
        """Most rows that a point takes anywhere, and the number of hidden matrices with each of a filter's
        offsets, for points of a shape."""
        shapes = self.check_shape(shape)
        matrices = sum(block.matrices(len(shape.positions)) for block in self.all_blocks)
        return max(shape.count for shape in shapes), matrices

    @property
    def group(self) -> int:
        """Neurons that meet in a nonlinearity: populations hold a multiple of them."""
        heads = [block.head_size for block in self.all_blocks if isinstance(block, AttentionBlock)]
        return math.lcm(*heads)

    @property
    def activations(self) -> set[str]:
        """Names of all activations in it."""
        found = {block.name for block in self.all_blocks if isinstance(block, ActivationBlock)}
        return found | {block.activation for block in self.all_blocks if isinstance(block, RecurrenceBlock)}


def _check_scales(scales: list[float] | None, depth: int) -> None:
    if scales is not None and len(scales) != depth + 1:
        raise ValueError(
            f"weight_scales needs depth + 1 = {depth + 1} numbers, for W^0 to W^{depth}; got {len(scales)}"
        )


class LayeredNetwork(BaseNetwork):
    """What mlp and residual have in common: L layers of one kind, on points without positions."""

    architecture: str
    depth: Depth = Field(3, description="Number of hidden layers L.")
    activation: ActivationName = "tanh"
    gamma0: Gamma0 = 1.0
    branch_scale: float = Field(
        1.0,
        gt=0,
        le=limits.MAX_SCALE,
        description="beta of architecture residual: h^{l+1} = h^l + (beta / sqrt(L)) W^l phi(h^l).",
    )
    weight_scales: WeightScales | None = Field(
        None,
        description="sigma_0 .. sigma_L: layer l computes sigma_l W^l, W^l of unit variance. null: all 1.",
    )
    bias_scale: BiasScale = Field(
        0.0,
        description="sigma_b: every hidden layer adds sigma_b b^l, b^l trained, of unit variance. 0: none.",
    )

    @model_validator(mode="after")
    def _one_scale_for_each_matrix(self) -> Self:
        _check_scales(self.weight_scales, self.depth)
        return self

    def check_shape(self, shape: Shape) -> list[Shape]:
        if shape.positions:
            raise ShapeError(
                f"architecture {self.architecture} takes points without positions, [D]; the data has points "
                f"of shape {shape}: flatten them to [{shape.count * (shape.inputs or 1)}], or use another "
                "architecture"
            )
        return super().check_shape(shape)

    def _dense(self, layer: int) -> DenseBlock:
        return DenseBlock(weight_scale=self._scale(layer), bias_scale=self.bias_scale)

    def _scale(self, layer: int) -> float:
        return self.weight_scales[layer] if self.weight_scales else 1.0


class MlpNetwork(LayeredNetwork):
    """h^1 = W^0 x / sqrt(D);  h^{l+1} = W^l phi(h^l) / sqrt(N) (theory section 1)."""

    architecture: Literal["mlp"] = "mlp"

    @model_validator(mode="after")
    def _no_branches(self) -> Self:
        if self.branch_scale != 1:
            raise ValueError("branch_scale is for architecture residual; got it with mlp")
        return self

    def expanded(self) -> list[Block]:
        blocks: list[Block] = []
        for layer in range(self.depth):
            blocks += [self._dense(layer), ActivationBlock(name=self.activation)]
        return [*blocks, ReadoutBlock(weight_scale=self._scale(self.depth))]


class ResidualNetwork(LayeredNetwork):
    """h^{l+1} = h^l + (beta / sqrt(L)) W^l phi(h^l) / sqrt(N)."""

    architecture: Literal["residual"] = "residual"

    def expanded(self) -> list[Block]:
        activation = ActivationBlock(name=self.activation)
        branches = [
            ResidualBlock(branch=[activation, self._branch_matrix(layer)]) for layer in range(1, self.depth)
        ]
        readout = ReadoutBlock(weight_scale=self._scale(self.depth))
        return [self._dense(0), *branches, activation, readout]

    def _branch_matrix(self, layer: int) -> DenseBlock:
        # beta / sqrt(L) is part of sigma_l: biases are added whole. A product of two scales may be beyond
        # the limit of one.
        scale = self.branch_scale / self.depth**0.5 * self._scale(layer)
        return DenseBlock.model_construct(weight_scale=scale, bias_scale=self.bias_scale)


class ConvolutionalNetwork(BaseNetwork):
    """L convolutions, each with its activation and, where asked for, a pool (paper, appendix on CNNs)."""

    architecture: Literal["convolutional"] = "convolutional"
    depth: Depth = Field(3, description="Number of convolutions L.")
    activation: ActivationName = "tanh"
    gamma0: Gamma0 = 1.0
    size: int = Field(3, ge=1, le=limits.MAX_FILTER, description="k: filters are k long, or k x k.")
    stride: int = Field(1, ge=1, le=limits.MAX_FILTER)
    padding: PaddingName = "same"
    pool: int = Field(
        1, ge=1, le=limits.MAX_FILTER, description="Size of a mean pool after each activation; 1: none."
    )
    positions: PositionsName = Field("mean", description="What of the positions is read out.")
    weight_scales: WeightScales | None = Field(None, description="sigma_0 .. sigma_L. null: all 1.")
    bias_scale: BiasScale = Field(0.0, description="sigma_b of every convolution's bias; 0: none.")

    @model_validator(mode="after")
    def _one_scale_for_each_matrix(self) -> Self:
        _check_scales(self.weight_scales, self.depth)
        return self

    def expanded(self) -> list[Block]:
        scales = self.weight_scales or [1.0] * (self.depth + 1)
        blocks: list[Block] = []
        for layer in range(self.depth):
            convolution = ConvolutionBlock(
                size=self.size,
                stride=self.stride,
                padding=self.padding,
                weight_scale=scales[layer],
                bias_scale=self.bias_scale,
            )
            blocks += [convolution, ActivationBlock(name=self.activation)]
            if self.pool > 1:
                blocks.append(PoolBlock(size=self.pool))
        return [*blocks, ReadoutBlock(positions=self.positions, weight_scale=scales[-1])]


class RecurrentNetwork(BaseNetwork):
    """L recurrences, one fed by the other's activations (theory section 10)."""

    architecture: Literal["recurrent"] = "recurrent"
    depth: Depth = Field(1, description="Number of recurrences L.")
    activation: ActivationName = "tanh"
    gamma0: Gamma0 = 1.0
    positions: PositionsName = Field("last", description="What of the positions is read out.")
    weight_scale: Scale = Field(1.0, description="sigma_w of the matrices from one time to the next.")
    input_scale: Scale = Field(1.0, description="sigma of the matrices that bring a recurrence its inputs.")
    bias_scale: BiasScale = Field(0.0, description="sigma_b of every recurrence's bias; 0: none.")

    def expanded(self) -> list[Block]:
        layer = [
            DenseBlock(weight_scale=self.input_scale, bias_scale=self.bias_scale),
            RecurrenceBlock(activation=self.activation, weight_scale=self.weight_scale),
            ActivationBlock(name=self.activation),
        ]
        return [*layer * self.depth, ReadoutBlock(positions=self.positions)]


class TransformerNetwork(BaseNetwork):
    """Attention and a two-layer network in branches, each behind a normalisation (theory section 12).

    h <- h + s attention(n(h)), h <- h + s V phi(U n(h)), L times, with s = beta / L^power; then n(h) is read
    out. Positions carry no code of their own: where their order matters, the data says it.
    """

    architecture: Literal["transformer"] = "transformer"
    depth: Depth = Field(2, description="Number L of pairs of branches.")
    activation: ActivationName = "gelu"
    gamma0: Gamma0 = 1.0
    head_size: int = Field(2, ge=1, le=limits.MAX_HEAD_SIZE, description="d, neurons of a head.")
    scores: ScoresName = "sqrt"
    causal: bool = False
    normalise: NormaliseName | None = Field("layer", description="null: nothing is normalised.")
    learned: bool = Field(False, description="Whether gains and offsets of normalisations are trained.")
    branch_scale: float = Field(1.0, gt=0, le=limits.MAX_SCALE, description="beta.")
    branch_power: float = Field(0.5, ge=0, le=1, description="Branches are scaled by beta / L^power.")
    positions: PositionsName = Field("mean", description="What of the positions is read out.")
    bias_scale: BiasScale = Field(0.0, description="sigma_b of the dense blocks' biases; 0: none.")

    def expanded(self) -> list[Block]:
        scale = self.branch_scale / self.depth**self.branch_power
        norm: list[Block] = (
            [NormaliseBlock(kind=self.normalise, learned=self.learned)] if self.normalise else []
        )
        dense = DenseBlock(bias_scale=self.bias_scale)
        attention = AttentionBlock(head_size=self.head_size, scores=self.scores, causal=self.causal)
        pair = [
            ResidualBlock(branch=[*norm, attention], scale=scale),
            ResidualBlock(
                branch=[*norm, dense, ActivationBlock(name=self.activation), dense],
                scale=scale,
            ),
        ]
        return [dense, *pair * self.depth, *norm, ReadoutBlock(positions=self.positions)]


class ComposedNetwork(BaseNetwork):
    """Any blocks, one after the other, from the data to a readout."""

    architecture: Literal["composed"]
    gamma0: Gamma0 = 1.0
    layers: list[AnyBlock] = Field(min_length=1, max_length=limits.MAX_LAYERS)

    @model_validator(mode="after")
    def _composes(self) -> Self:
        count = 0
        for place, block in walk(self.layers, "layers"):
            count += 1
            if isinstance(block, ReadoutBlock) and place != ("layers", len(self.layers) - 1):
                raise refused("a readout is the last block of a network", place)
            if len(place) > 2 * limits.MAX_NESTING:
                raise refused(
                    f"blocks stand inside each other too deeply (limit: {limits.MAX_NESTING})", place
                )
        if count > limits.MAX_LAYERS:
            raise ValueError(f"layers holds {count} blocks, inner ones included (limit: {limits.MAX_LAYERS})")
        if not isinstance(self.layers[-1], ReadoutBlock):
            raise refused(
                f'a network ends in a readout, {{"block": "readout"}}; got {self.layers[-1].block}',
                ("layers", len(self.layers) - 1),
            )
        if len(self.layers) == 1:
            raise ValueError("layers must have a block with neurons before the readout: dense, for instance")
        return self

    def expanded(self) -> list[Block]:
        return list(self.layers)

    def check_shape(self, shape: Shape) -> list[Shape]:
        shapes = shapes_through(self.layers, shape, "layers")
        implied = len(self.blocks) - len(self.layers)
        return [shape, *[shape.of_neurons()] * implied, *shapes[1:]] if implied else shapes


def _by_architecture(value: Any, handler: Any, info: ValidationInfo) -> Any:
    """The network that `value` names; mlp where it names none, as requests from before there were others.

    Places in errors then name no union.
    """
    if not isinstance(value, dict):
        return value if isinstance(value, BaseNetwork) else handler(value)
    name = value.get("architecture", "mlp")
    model = ARCHITECTURES.get(name) if isinstance(name, str) else None
    if model is None:
        known = " or ".join(f"'{known}'" for known in ARCHITECTURES)
        raise refused(f"Input should be {known}", ("architecture",))
    return model.model_validate(value, context=info.context)


Network = Annotated[
    MlpNetwork
    | ResidualNetwork
    | ConvolutionalNetwork
    | RecurrentNetwork
    | TransformerNetwork
    | ComposedNetwork,
    Field(discriminator="architecture"),
    WrapValidator(_by_architecture),
]
"""What a request may ask for."""

ARCHITECTURES: dict[str, type[BaseNetwork]] = {
    get_args(model.model_fields["architecture"].annotation)[0]: model
    for model in get_args(get_args(Network)[0])
}
"""Name -> the model, of every network that a request may ask for."""
