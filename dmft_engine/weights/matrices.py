"""Hidden-to-hidden matrices as objects with a product in each direction.

The forward pass (networks.py) is written once over them. Fields are [R, rows, S]: replicas, rows (a row is a
point, or a point at a position), neurons; every matrix here is W / sqrt(N) of theory section 1. It reads at
one node and writes at another. Any number of matrices may share a node, and one may be used several times in
a pass. A filter (windows.py) is B matrices between the same two nodes, each between rows at its own offset:
one object here, whose arrays have B times as many rows or columns, offsets fastest.

    RevealedMatrix   known only along the directions training visits  -> the infinite-width limit
    DenseMatrix      an explicit N x N array                          -> a finite network

Each has two variants whose way back is not its transpose (backward rules of initialisation.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from dmft_engine.populations.node import Node, Seen
from dmft_engine.populations.subspace import Rows
from dmft_engine.state import State, Stateful
from dmft_engine.weights.parameter import Parameter, Update
from dmft_engine.weights.tangent import in_bases, tangent_of_uses, whole
from dmft_engine.weights.windows import WHOLE, Window


@dataclass
class Use:
    """One product of a matrix with a field in the current pass.

    Attributes:
        x: the field.
        g: the gradients that came back to it, one for each output.
        through_rows, through_columns: RevealedMatrix's products of x with V and of each g with Y.
    """

    x: Seen
    g: list[Seen] = field(default_factory=list)
    through_rows: Tensor | None = None
    through_columns: list[Tensor] = field(default_factory=list)


class HiddenMatrix(Protocol):
    """A hidden-to-hidden matrix W / sqrt(N).

    Attributes:
        source, target: the nodes where it reads x and writes; gradients g pass at the target.
        uses: those of the current pass, in order.
    """

    source: Node
    target: Node
    uses: list[Use]

    def start_step(self) -> None:
        """Forget the uses of the pass before."""

    def apply(self, x: Seen) -> tuple[Tensor, Use]:
        """W x / sqrt(N) for activations x [R, rows, S], and the use that this is."""

    def apply_transpose(self, g: Seen, use: Use) -> Tensor:
        """W^T g / sqrt(N) for the gradients g [R, rows, S] of one output, which belong to a use."""

    def update(self, weighted: Tensor, rule: Update) -> None:
        """W += (1 / sqrt(N)) sum_{uses, mu, c} weighted[mu, c] g_{mu, c} x_mu^T, by the optimiser's rule.

        Args:
            weighted: [R, C, P], the errors times gamma0 eta / P, for each row or for each point of several.
            rule: what the step does with gradients.
        """

    def tangent(self, points: int) -> Tensor:
        """Its term of the NTK: sum over its uses' rows of g . g x . x / N^2, [R, C, P, C, P]."""

    def rest(self, points: int) -> Tensor:
        """What of `tangent` lies outside the nodes' bases."""

    def parameters(self) -> list[Parameter]:
        """All that training moves."""

    def state(self) -> State:
        """What is known of it, between two passes (state.py)."""

    def restore(self, state: State) -> None:
        """See Stateful.restore."""


class _MatvecFunction(torch.autograd.Function):
    """Lets autograd carry gradients through a HiddenMatrix, so that g needs no code of its own."""

    @staticmethod
    def forward(ctx, x: Tensor, matrix: HiddenMatrix, scale: float) -> Tensor:  # type: ignore[no-untyped-def]
        product, use = matrix.apply(matrix.source.show(x.detach()))
        ctx.matrix, ctx.use, ctx.scale = matrix, use, scale
        return scale * product

    @staticmethod
    def backward(ctx, g: Tensor):  # type: ignore[no-untyped-def]
        back = ctx.matrix.apply_transpose(ctx.matrix.target.show(g), ctx.use)
        return ctx.scale * back, None, None


def matvec(matrix: HiddenMatrix, x: Tensor, scale: float) -> Tensor:
    """sigma W x / sqrt(N), differentiable: its gradient is sigma times `apply_transpose`.

    The scale is applied in here so that the matrix is shown x and g themselves, whose kernels it keeps.
    """
    return _MatvecFunction.apply(x, matrix, scale)


class _Matrix(Stateful):
    """What all of them keep: where they stand, and their uses."""

    def __init__(self, source: Node, target: Node, window: Window = WHOLE) -> None:
        self.source = source
        self.target = target
        self.uses: list[Use] = []
        self._window = window

    def start_step(self) -> None:
        self.uses = []

    def tangent(self, points: int) -> Tensor:
        return self._tangent(points, whole)

    def rest(self, points: int) -> Tensor:
        """What of `tangent` lies outside the nodes' bases."""
        return self.tangent(points) - self._tangent(points, in_bases)

    def _tangent(self, points: int, vectors: Callable[[list[Seen]], list[Tensor]]) -> Tensor:
        if not self.uses:  # as of a recurrence over one time
            return torch.zeros((), dtype=self.source.space.basis.dtype, device=self.source.space.basis.device)
        x = vectors([use.x for use in self.uses])
        g = vectors([use.g[output] for output in range(len(self.uses[0].g)) for use in self.uses])
        return tangent_of_uses(x, g, points, self._window)

    def _used(self, x: Seen) -> Use:
        self.uses.append(Use(x))
        return self.uses[-1]


class RevealedMatrix(_Matrix):
    """A Gaussian matrix that is drawn only along the directions training visits (theory section 2).

    With Qx and Qg the bases of its source and its target it holds
        Y = W(0) Qx^T  [R, kx, S] in the target population,
        V = W(0)^T Qg^T [R, kg, S] in the source population,
        X = Qg W(0) Qx^T [R, kg, kx], which Y and V share,
        M [R, kg, kx], what training has added: W(t) = a W(0) + Qg^T M Qx, a = 1 without weight decay.

    Entries of X are known first from V, where the row was revealed before the column, or from Y. Of a filter
    with B offsets, Y, V, X and M have B times as many rows.
    """

    kept: ClassVar[tuple[str, ...]] = ("_y", "_v", "_core", "_from_v", "_learned", "_kept")

    def __init__(self, source: Node, target: Node, responses: bool = True, window: Window = WHOLE) -> None:
        """Without `responses` the two directions know nothing of each other: Y and V are fresh alone."""
        super().__init__(source, target, window)
        self._offsets = window.forward.count
        self._responses = responses
        prototype = source.space.basis
        replicas, _, samples = prototype.shape
        like = (replicas, samples, prototype.dtype, str(prototype.device))
        self._y = Rows(*like)
        self._v = Rows(*like)
        self._core = prototype.new_zeros(replicas, 0, 0)
        self._from_v = self._core
        self._learned = Parameter(prototype.new_zeros(replicas, 0, 0))
        self._kept = Parameter(prototype.new_ones(replicas, 1, 1))

    def apply(self, x: Seen) -> tuple[Tensor, Use]:
        c, use = x.coordinates, self._used(x)
        self._catch_up()
        c = _padded(c, self._columns)
        # W(0) x = Y c + Qg (V^T r) + |r| omega with r = x - Qx c; the fresh noise |r| omega is dropped.
        coefficients = c @ self._learned.value.mT
        if self._responses:
            use.through_rows = x.field @ self._v.all.mT
            coefficients += self._kept.value * (use.through_rows - c @ self._core.mT)
        read = self._window.forward.spread(self._kept.value * c)
        coefficients = self._window.forward.total(coefficients)
        return torch.baddbmm(read @ self._y.all, coefficients, self.target.space.basis), use

    def apply_transpose(self, g: Seen, use: Use) -> Tensor:
        d = self._returned(g, use)
        # W(0)^T g = V d + Qx (Y^T r) + |r| omega with r = g - Qg d.
        coefficients = d @ self._by_row(self._learned.value)
        if self._responses:
            through_columns = g.field @ self._y.all.mT
            coefficients += self._kept.value * (through_columns - d @ self._by_row(self._core))
            use.through_columns.append(through_columns)
        read = self._window.back.spread(self._kept.value * d)
        coefficients = self._window.back.total(coefficients)
        return torch.baddbmm(read @ self._v.all, coefficients, self.source.space.basis)

    def _by_row(self, entries: Tensor) -> Tensor:
        """[R, kg B, kx] as [R, kg, kx B]."""
        if self._offsets == 1:
            return entries
        return entries.unflatten(1, (-1, self._offsets)).transpose(2, 3).flatten(2)

    def _by_direction(self, products: Tensor) -> Tensor:
        """[R, n, k B] as [R, n B, k]."""
        if self._offsets == 1:
            return products
        return products.unflatten(2, (-1, self._offsets)).transpose(2, 3).flatten(1, 2)

    def update(self, weighted: Tensor, rule: Update) -> None:
        # M += (e / S) sum_mu Delta_mu cg_mu cx_mu^T
        if self.uses:
            pulled = [
                torch.stack(
                    [
                        by_row(weight, g.field)[..., None] * _padded(g.coordinates, self._rows)
                        for g, weight in zip(use.g, weighted.unbind(1), strict=True)
                    ]
                ).sum(0)
                for use in self.uses
            ]
            left = torch.cat([self._window.back.spread(part) for part in pulled], 1).mT
            x = [_padded(use.x.coordinates, self._columns) for use in self.uses]
            rule(self._learned, left, torch.cat(x, 1), 1 / self.source.space.basis.shape[-1])
        else:
            rule(self._learned, self._learned.value[..., :0], self._learned.value[:, :0], 1.0)
        # The part along W(0) has no gradient of its own: it only decays.
        nothing = torch.zeros_like(self._kept.value)
        rule(self._kept, nothing, nothing, 1.0)

    def parameters(self) -> list[Parameter]:
        return [self._learned, self._kept]

    @property
    def coordinates_shown(self) -> tuple[Tensor, list[Tensor]]:
        """Those last used: of the activations [R, P, kx], and of the gradients of each output [R, P, kg]."""
        (use,) = self.uses
        return use.x.coordinates, [g.coordinates for g in use.g]

    def responses_shown(self) -> tuple[Tensor, list[Tensor]]:
        """Products of the fields last used with what was fresh in V and in Y: alpha, and beta by output
        (responses.py)."""
        (use,) = self.uses
        c, through_rows = use.x.coordinates, use.through_rows
        assert through_rows is not None, "a matrix without responses shows none"
        from_y = self._core - self._from_v
        rows = through_rows.shape[-1]
        alpha = through_rows - c @ from_y[:, :rows, : c.shape[-1]].mT
        beta = [
            through_columns
            - g.coordinates @ self._from_v[:, : g.coordinates.shape[-1], : through_columns.shape[-1]]
            for through_columns, g in zip(use.through_columns, use.g, strict=True)
        ]
        return alpha, beta

    @property
    def _rows(self) -> int:
        return self._learned.value.shape[1] // self._offsets

    @property
    def _columns(self) -> int:
        return self._learned.value.shape[2]

    def _returned(self, g: Seen, use: Use) -> Tensor:
        """A gradient that came back to a use: its coordinates [R, rows, kg], with all rows revealed."""
        use.g.append(g)
        d = g.coordinates
        self._catch_up()
        return _padded(d, self._rows)

    def _catch_up(self) -> None:
        """Reveal along the directions that have joined the nodes' bases since this matrix last looked."""
        if self.source.space.size > self._columns:
            self._reveal_columns(self.source.space.basis[:, self._columns :])
        if self.target.space.size > self._rows:
            self._reveal_rows(self.target.space.basis[:, self._rows :])

    def _reveal_columns(self, directions: Tensor) -> None:
        column = self.target.population.fresh(directions.shape[1] * self._offsets)
        if self._responses:
            known = directions @ self._v.all.mT
            through = self._by_direction(known)
            column = torch.baddbmm(column, through, self.target.space.basis[:, : self._rows])
            self._core = torch.cat([self._core, known.mT], dim=2)
            self._from_v = torch.cat([self._from_v, known.mT], dim=2)
        self._y.append(column)
        self._learned.grow(0, directions.shape[1])

    def _reveal_rows(self, directions: Tensor) -> None:
        count = directions.shape[1] * self._offsets
        row = self.source.population.fresh(count)
        if self._responses:
            known = self._by_direction(directions @ self._y.all.mT)
            row = torch.baddbmm(row, known, self.source.space.basis[:, : self._columns])
            self._core = torch.cat([self._core, known], dim=1)
            self._from_v = torch.nn.functional.pad(self._from_v, (0, 0, 0, count))
        self._v.append(row)
        self._learned.grow(count, 0)


class RevealedFixedFeedback(RevealedMatrix):
    """Carries errors back by a second matrix, independent of the first and never trained."""

    def __init__(self, source: Node, target: Node) -> None:
        super().__init__(source, target, responses=False)

    def apply_transpose(self, g: Seen, use: Use) -> Tensor:
        return self._returned(g, use) @ self._v.all


class RevealedNoFeedback(RevealedMatrix):
    """Carries no errors back: the layer below hears of them by another way."""

    def __init__(self, source: Node, target: Node) -> None:
        super().__init__(source, target, responses=False)

    def apply_transpose(self, g: Seen, use: Use) -> Tensor:
        self._returned(g, use)
        return torch.zeros_like(g.field)

    def _reveal_rows(self, directions: Tensor) -> None:
        self._learned.grow(directions.shape[1], 0)


class DenseMatrix(_Matrix):
    """An explicit matrix for each member of an ensemble."""

    kept: ClassVar[tuple[str, ...]] = ("_scaled",)

    def __init__(self, source: Node, target: Node, initial: Tensor, window: Window = WHOLE) -> None:
        """Take W [R, N, N B] with standard normal entries."""
        super().__init__(source, target, window)
        self._scaled = Parameter(initial / initial.shape[1] ** 0.5)

    def apply(self, x: Seen) -> tuple[Tensor, Use]:
        return self._window.forward.spread(x.field) @ self._scaled.value.mT, self._used(x)

    def apply_transpose(self, g: Seen, use: Use) -> Tensor:
        use.g.append(g)
        return self._window.back.total(g.field @ self._scaled.value)

    def update(self, weighted: Tensor, rule: Update) -> None:
        if not self.uses:
            return rule(self._scaled, self._scaled.value[..., :0], self._scaled.value[:, :0], 1.0)
        pulled = [
            (by_row(weighted, use.g[0].field)[..., None] * torch.stack([g.field for g in use.g], dim=1)).sum(
                dim=1
            )
            for use in self.uses
        ]
        x = [self._window.forward.spread(use.x.field) for use in self.uses]
        rule(self._scaled, torch.cat(pulled, 1).mT, torch.cat(x, 1), 1 / pulled[0].shape[-1])

    def parameters(self) -> list[Parameter]:
        return [self._scaled]


class DenseFixedFeedback(DenseMatrix):
    """Carries errors back by a second matrix, independent of the first and never trained."""

    kept: ClassVar[tuple[str, ...]] = ("_scaled", "_feedback")

    def __init__(self, source: Node, target: Node, initial: Tensor, feedback: Tensor) -> None:
        """Take W and the transpose of the other, both [R, N, N] with standard normal entries."""
        super().__init__(source, target, initial)
        self._feedback = feedback / feedback.shape[-1] ** 0.5

    def apply_transpose(self, g: Seen, use: Use) -> Tensor:
        use.g.append(g)
        return g.field @ self._feedback


class DenseNoFeedback(DenseMatrix):
    """Carries no errors back: the layer below hears of them by another way."""

    def apply_transpose(self, g: Seen, use: Use) -> Tensor:
        use.g.append(g)
        return torch.zeros_like(g.field)


def by_row(weighted: Tensor, field: Tensor) -> Tensor:
    """Numbers [.., P] of points, for each of a field's rows [R, rows, S]."""
    positions = field.shape[1] // weighted.shape[-1]
    return weighted if positions == 1 else weighted.repeat_interleave(positions, dim=-1)


def _padded(coordinates: Tensor, width: int) -> Tensor:
    """[R, rows, width], from coordinates in a basis that has grown since."""
    return torch.nn.functional.pad(coordinates, (0, width - coordinates.shape[-1]))
