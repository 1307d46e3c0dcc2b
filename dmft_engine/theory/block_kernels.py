"""What each block makes of the kernels of the field that enters it, at t = 0 (theory sections 5 and 8 to 11).

For one pair of points (mu, nu) a kernel is [A, A'], between their positions, or [A] where all that follows
needs equal positions alone. Beside the covariance K = <x x'> over neurons goes the tangent kernel
Theta = sum over parameters of (dx / d parameter) (dx' / d parameter), which is the same for all neurons of a
Gaussian field and is averaged over them elsewhere. One function for each block; RECURSIONS names them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from dmft_engine.model.activations import Activation
from dmft_engine.model.gaussian_averages import Averages
from dmft_engine.theory.point_pairs import PointPairs, Rows, averages_of
from dmft_engine.theory.sampled_attention import Attended, Heads
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
)
from dmft_schema.closing import mixes_positions

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Field:
    """A population at one place of a network, for n pairs of points.

    Attributes:
        covariance: K, [n, A, A'], or [n, A] between equal positions.
        tangent: Theta, of the same shape.
        mean: <x> over neurons of each row, [P, A]; None where it is 0.
        positions: (), (times,) or (height, width), of A in all.
    """

    covariance: Tensor
    tangent: Tensor
    mean: Tensor | None
    positions: tuple[int, ...]

    @property
    def has_all(self) -> bool:
        """Whether all pairs of positions are there."""
        return self.covariance.ndim == 3

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Field:
        """With both kernels changed in the same way, which is linear."""
        return replace(self, covariance=change(self.covariance), tangent=change(self.tangent))

    def thinned(self) -> Field:
        """Between equal positions alone."""
        return self.mapped(equal_positions)


def equal_positions(kernel: Tensor) -> Tensor:
    """[n, A] of [n, A, A] or [n, A]."""
    return kernel.diagonal(dim1=1, dim2=2) if kernel.ndim == 3 else kernel


@dataclass
class Layer:
    """What a block that bears weights makes.

    Attributes:
        taken: the field that it took.
        made: h; where it ends a branch, the sum of stream and branch.
        tangents: the tangent kernel of h, in parts along the first axis of positions if made in parts. The
            derivatives of the output's tangent kernel by it are G.
    """

    taken: Field
    made: Field
    tangents: list[Tensor]


class Walk:
    """One pass of n pairs of points through a network.

    Attributes:
        pairs: which.
        rows: what pairs of equal points have left behind.
        activation: name -> it.
        averages: which of its averages are to be used.
        seed: of what is sampled.
        layers: blocks met that bear weights, in their order, the readout last.
    """

    def __init__(
        self,
        pairs: PointPairs,
        rows: Rows,
        activation: Callable[[str], Activation],
        averages: Callable[[Activation], Averages],
        seed: int = 0,
    ) -> None:
        self.pairs = pairs
        self.rows = rows
        self.activation = activation
        self.averages = averages
        self.seed = seed
        self.layers: list[Layer] = []

    def through(self, blocks: Sequence[Block], field: Field, all_after: bool, place: Place) -> Field:
        """The field behind `blocks`, after which all pairs of positions are needed or equal ones alone."""
        for index, block in enumerate(blocks):
            wanted = all_after or any(mixes_positions(later) for later in blocks[index + 1 :])
            if field.has_all and not wanted and not mixes_positions(block):
                field = field.thinned()
            field = RECURSIONS[block.block](self, block, field, (*place, index))
            if field.has_all and not wanted:
                field = field.thinned()
        return field

    def sides(self, rows: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Values [P, A] of rows on either side of entries `like` a kernel."""
        first, second = rows[self.pairs.first], rows[self.pairs.second]
        return (first[:, :, None], second[:, None, :]) if like.ndim == 3 else (first, second)

    def variances(self, place: Place, covariance: Tensor) -> Tensor:
        """K of each row with itself, [P, A]."""
        return self.rows.take(place, self.pairs, equal_positions(covariance))


def dense(walk: Walk, block: DenseBlock, field: Field, place: Place) -> Field:
    """K' = sigma_w^2 K + sigma_b^2;  Theta' = K' + sigma_w^2 Theta (Jacot et al. 2018)."""
    return _weighted(walk, field, field, block.weight_scale, block.bias_scale)


def _weighted(walk: Walk, taken: Field, gathered: Field, weight_scale: float, bias_scale: float) -> Field:
    """New weights on what was `gathered` from the rows of what was `taken`."""
    variance = weight_scale**2
    covariance = variance * gathered.covariance + bias_scale**2
    tangent = covariance + variance * gathered.tangent
    made = Field(covariance, tangent, None, gathered.positions)
    walk.layers.append(Layer(taken, made, [tangent]))
    return made


def convolution(walk: Walk, block: ConvolutionBlock, field: Field, place: Place) -> Field:
    """Both kernels averaged over the filter's offsets b: K[a + b, a' + b], then as for dense (section 9)."""
    offsets, positions = filter_table(block, field.positions)
    offsets = offsets.to(field.covariance.device)

    def averaged(kernel: Tensor) -> Tensor:
        # Row A is what lies outside: zeros.
        padding = (0, 1, 0, 1) if kernel.ndim == 3 else (0, 1)
        padded = pad(kernel, padding)
        total = None
        for inputs in offsets:
            term = padded[:, inputs]
            term = term[:, :, inputs] if kernel.ndim == 3 else term
            total = term if total is None else total + term
        assert total is not None
        return total / len(offsets)

    smoothed = replace(field.mapped(averaged), positions=positions)
    return _weighted(walk, field, smoothed, block.weight_scale, block.bias_scale)


def filter_table(block: ConvolutionBlock, positions: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
    """For each offset of the filter and each output position, the input position, A if outside: [k^d, A']."""
    lead = 0 if block.padding == "valid" else (block.size - 1) // 2
    inside = block.size - 1 if block.padding == "valid" else 0
    outputs = tuple(-(-(n - inside) // block.stride) for n in positions)
    axes = []
    for n, count in zip(positions, outputs, strict=True):
        # [k, outputs along this axis]
        along = torch.arange(count) * block.stride + (torch.arange(block.size) - lead)[:, None]
        axes.append(along % n if block.padding == "circular" else along.where((along >= 0) & (along < n), -1))
    index = axes[0]
    outside = index < 0
    for n, axis in zip(positions[1:], axes[1:], strict=True):
        index = (index[:, None, :, None] * n + axis[None, :, None, :]).flatten(2).flatten(0, 1)
        outside = (outside[:, None, :, None] | (axis < 0)[None, :, None, :]).flatten(2).flatten(0, 1)
    return index.masked_fill(outside, math.prod(positions)), outputs


def activation(walk: Walk, block: ActivationBlock, field: Field, place: Place) -> Field:
    """K' = <phi(u) phi(v)>, Theta' = <phi'(u) phi'(v)> Theta, (u, v) Gaussian of covariance K (section 5)."""
    if block.name == "linear":
        return field
    chosen = walk.activation(block.name)
    variances = walk.variances(place, field.covariance)
    phi, slope = averages_of(
        walk.averages(chosen), *walk.sides(variances, field.covariance), field.covariance
    )
    mean = chosen.mean(variances) if chosen.mean else None
    return Field(phi, slope * field.tangent, mean, field.positions)


def normalise(walk: Walk, block: NormaliseBlock, field: Field, place: Place) -> Field:
    """Each row over its root mean square, of kind layer with its mean taken off (section 11).

    Its own gradient - the part of an update along the field - averages to zero: <x dx> = 0 at t = 0, as
    gradients are independent of fields there. So Theta is divided like K.
    """
    covariance = field.covariance
    mean = field.mean
    if block.kind == "layer" and mean is not None:
        first, second = walk.sides(mean, covariance)
        covariance, mean = covariance - first * second, None
    root = walk.variances(place, covariance).clamp_min(0).sqrt()
    # A row of zeros, such as a patch of black pixels, stays what it is.
    inverse = torch.where(root > 0, 1 / root, 0.0)
    first, second = walk.sides(inverse, covariance)
    covariance, tangent = covariance * first * second, field.tangent * first * second
    if block.learned:
        # Gains begin at 1 and add n n', neuron by neuron; offsets add 1.
        tangent = tangent + covariance + (1.0 if block.kind == "layer" else 0.0)
    return replace(
        field, covariance=covariance, tangent=tangent, mean=None if mean is None else mean * inverse
    )


def pool(walk: Walk, block: PoolBlock, field: Field, place: Place) -> Field:
    """Means over windows, on both sides."""
    outputs = tuple(n // block.size for n in field.positions)
    windows = window_means(field.positions, block.size).to(field.covariance)
    if block.size == 1:
        return field
    mean = None if field.mean is None else field.mean @ windows.mT
    pooled = field.mapped(lambda kernel: windows @ kernel @ windows.mT)
    return replace(pooled, mean=mean, positions=outputs)


def window_means(positions: tuple[int, ...], size: int) -> Tensor:
    """[A', A]: from positions to means over windows of `size` along each axis."""
    total = torch.ones(1, 1, dtype=torch.float64)
    for n in positions:
        axis = torch.zeros(n // size, n, dtype=torch.float64)
        for window in range(n // size):
            axis[window, window * size : (window + 1) * size] = 1 / size
        total = torch.kron(total, axis)
    return total


def attention(walk: Walk, block: AttentionBlock, field: Field, place: Place) -> Field:
    """Three matrices to queries, keys and values, heads by sampling, and an output matrix (section 12)."""
    heads = Heads.on(
        block,
        walk.pairs.to_rows(field.covariance),
        math.prod(field.positions),
        (walk.seed, len(walk.layers)),
    )
    # Of queries, keys and values: their own weights, and what comes from below.
    covariance, tangent = Attended.apply(field.covariance + field.tangent, heads, walk.pairs)
    output = Field(covariance, tangent, None, field.positions)
    return _weighted(walk, field, output, 1.0, 0.0)


def residual(walk: Walk, block: ResidualBlock, field: Field, place: Place) -> Field:
    """Sums: a branch with a matrix in it is independent of the stream, but for the means of both."""
    branch = walk.through(block.branch, field, field.has_all, (*place, "branch"))
    stream = field if branch.has_all == field.has_all else field.thinned()
    scale = block.scale
    covariance = stream.covariance + scale**2 * branch.covariance
    mean = stream.mean if branch.mean is None else scale * branch.mean
    if stream.mean is not None and branch.mean is not None:
        one, other = walk.sides(stream.mean, covariance)
        beside, across = walk.sides(branch.mean, covariance)
        covariance = covariance + scale * (one * across + beside * other)
        mean = stream.mean + scale * branch.mean
    total = Field(covariance, stream.tangent + scale**2 * branch.tangent, mean, stream.positions)
    if _ends_in_weights(block):
        walk.layers[-1].made = total
    return total


def _ends_in_weights(block: ResidualBlock) -> bool:
    last = block.branch[-1]
    return _ends_in_weights(last) if isinstance(last, ResidualBlock) else last.bears_weights


def recurrence(walk: Walk, block: RecurrenceBlock, field: Field, place: Place) -> Field:
    """The same matrix at all times (section 10; Alemohammad et al. 2021), h_0 = 0 and W phi(h_0) left out.

    K[tau, tau']     = K^x[tau, tau'] + sigma_w^2 <phi(h_{tau-1}) phi(h_{tau'-1})>
    Theta[tau, tau'] = Theta^x[tau, tau'] + sigma_w^2 (<phi phi> + <phi' phi'> Theta[tau-1, tau'-1])
    """
    averages, variance = walk.averages(walk.activation(block.activation)), block.weight_scale**2
    times = range(1, field.positions[0])
    # Variances first, from pairs of equal points.
    known = equal_positions(field.covariance).clone()
    equal = walk.pairs.equal
    for time in times:
        before = known[equal, time - 1]
        phi, _ = averages_of(averages, before, before, before)
        known[equal, time] += variance * phi
    first, second = walk.sides(walk.rows.take(place, walk.pairs, known), field.covariance)
    covariances, tangents = [field.covariance[:, 0]], [field.tangent[:, 0]]
    for time in times:
        # [n, A'], or [n]; between unequal positions row tau comes of row tau - 1, shifted along tau'.
        before, tangent = covariances[-1], tangents[-1]
        if field.has_all:
            before, tangent = before[:, :-1], tangent[:, :-1]
            phi, slope = averages_of(averages, first[:, time - 1], second[:, 0, :-1], before)
            added, carried = (pad(values, (1, 0)) for values in (phi, phi + slope * tangent))
        else:
            phi, slope = averages_of(averages, first[:, time - 1], second[:, time - 1], before)
            added, carried = phi, phi + slope * tangent
        covariances.append(field.covariance[:, time] + variance * added)
        tangents.append(field.tangent[:, time] + variance * carried)
    made = Field(torch.stack(covariances, 1), torch.stack(tangents, 1), None, field.positions)
    walk.layers.append(Layer(field, made, tangents))
    return made


def readout(walk: Walk, block: ReadoutBlock, field: Field, place: Place) -> Field:
    """f gamma0 sqrt(N): of the mean over positions, of each with its own weights, or of the last."""
    match block.positions:
        case "mean":
            axes = (1, 2) if field.has_all else (1,)
            taken = field.mapped(lambda kernel: kernel.mean(axes)[:, None])
        case "flatten":
            taken = field.mapped(lambda kernel: equal_positions(kernel).mean(1, keepdim=True))
        case "last":
            taken = field.mapped(lambda kernel: equal_positions(kernel)[:, -1:])
    return _weighted(walk, field, replace(taken, positions=()), block.weight_scale, 0.0)


RECURSIONS: dict[str, Callable[[Walk, Block, Field, Place], Field]] = {
    "dense": dense,  # type: ignore[dict-item]
    "convolution": convolution,  # type: ignore[dict-item]
    "activation": activation,  # type: ignore[dict-item]
    "normalise": normalise,  # type: ignore[dict-item]
    "pool": pool,  # type: ignore[dict-item]
    "attention": attention,  # type: ignore[dict-item]
    "residual": residual,  # type: ignore[dict-item]
    "recurrence": recurrence,  # type: ignore[dict-item]
    "readout": readout,  # type: ignore[dict-item]
}
"""Block -> its recursion."""
