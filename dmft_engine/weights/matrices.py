"""Hidden-to-hidden matrices as objects with a product in each direction.

The forward pass (networks.py) is written once over them. Fields are [R, P, S]: replicas, points,
neurons; every matrix here is W / sqrt(N) of theory section 1.

    RevealedMatrix   known only along the directions training visits  -> the infinite-width limit
    DenseMatrix      an explicit N x N array                          -> a finite network

Each has two variants whose way back is not its transpose (backward rules of initialisation.py).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from dmft_engine.model.recipe import Dynamics
from dmft_engine.populations.population import Layer
from dmft_engine.populations.subspace import Rows
from dmft_engine.weights.parameter import Parameter


class HiddenMatrix(Protocol):
    """A hidden-to-hidden matrix W / sqrt(N)."""

    def apply(self, x: Tensor) -> Tensor:
        """W x / sqrt(N) for activations x [R, P, S]."""

    def apply_transpose(self, g: Tensor) -> Tensor:
        """W^T g / sqrt(N) for gradients g [R, P, S]."""

    def update(self, x: Tensor, g: Tensor, weighted: Tensor, dynamics: Dynamics) -> None:
        """W += (1 / sqrt(N)) sum_{mu, c} weighted[mu, c] g_{mu, c} x_mu^T.

        Args:
            x: [R, P, S], as last given to `apply`.
            g: [R, C, P, S], as last given to `apply_transpose`, output by output.
            weighted: [R, C, P], the errors times gamma0 eta / P.
            dynamics: momentum and decay of the step.
        """

    def parameters(self) -> list[Parameter]:
        """All that training moves."""


class _MatvecFunction(torch.autograd.Function):
    """Lets autograd carry gradients through a HiddenMatrix, so that g needs no code of its own."""

    @staticmethod
    def forward(ctx, x: Tensor, matrix: HiddenMatrix, scale: float) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.matrix, ctx.scale = matrix, scale
        return scale * matrix.apply(x.detach())

    @staticmethod
    def backward(ctx, g: Tensor):  # type: ignore[no-untyped-def]
        return ctx.scale * ctx.matrix.apply_transpose(g), None, None


def matvec(matrix: HiddenMatrix, x: Tensor, scale: float) -> Tensor:
    """sigma W x / sqrt(N), differentiable: its gradient is sigma times `apply_transpose`.

    The scale is applied in here so that the matrix is shown x and g themselves, whose kernels it keeps.
    """
    return _MatvecFunction.apply(x, matrix, scale)


class RevealedMatrix:
    """A Gaussian matrix that is drawn only along the directions training visits (theory section 2).

    With Qx = source.phi.basis and Qg = target.g.basis it holds
        Y = W(0) Qx^T  [R, kx, S] in the target population,
        V = W(0)^T Qg^T [R, kg, S] in the source population,
        X = Qg W(0) Qx^T [R, kg, kx], which Y and V share,
        M [R, kg, kx], what training has added: W(t) = a W(0) + Qg^T M Qx, a = 1 without weight decay.

    Entries of X are known first from V, where the row was revealed before the column, or from Y.
    """

    def __init__(self, source: Layer, target: Layer, responses: bool = True) -> None:
        """Without `responses` the two directions know nothing of each other: Y and V are fresh alone."""
        self._responses = responses
        self._source = source
        self._target = target
        prototype = source.phi.basis
        like = (source.replicas, source.samples, prototype.dtype, str(prototype.device))
        self._y = Rows(*like)
        self._v = Rows(*like)
        self._core = prototype.new_zeros(source.replicas, 0, 0)
        self._from_v = self._core
        self._shown_forward: list[tuple[Tensor, Tensor]] = []
        self._shown_backward: list[tuple[Tensor, Tensor]] = []
        self._learned = Parameter(prototype.new_zeros(source.replicas, 0, 0))
        self._kept = Parameter(prototype.new_ones(source.replicas, 1, 1))

    def apply(self, x: Tensor) -> Tensor:
        c, new = self._source.observe(self._source.phi, x)
        if new is not None:
            self._reveal_columns(new)
        # W(0) x = Y c + Qg (V^T r) + |r| omega with r = x - Qx c; the fresh noise |r| omega is dropped.
        coefficients = c @ self._learned.value.mT
        if self._responses:
            through_rows = x @ self._v.all.mT
            coefficients += self._kept.value * (through_rows - c @ self._core.mT)
            self._shown_forward = [(through_rows, c)]
            self._shown_backward = []
        return torch.baddbmm((self._kept.value * c) @ self._y.all, coefficients, self._target.g.basis)

    def apply_transpose(self, g: Tensor) -> Tensor:
        d, new = self._target.observe(self._target.g, g)
        if new is not None:
            self._reveal_rows(new)
        # W(0)^T g = V d + Qx (Y^T r) + |r| omega with r = g - Qg d.
        coefficients = d @ self._learned.value
        if self._responses:
            through_columns = g @ self._y.all.mT
            coefficients += self._kept.value * (through_columns - d @ self._core)
            self._shown_backward.append((through_columns, d))
        return torch.baddbmm((self._kept.value * d) @ self._v.all, coefficients, self._source.phi.basis)

    def update(self, x: Tensor, g: Tensor, weighted: Tensor, dynamics: Dynamics) -> None:
        (c,) = self._source.phi.latest
        outputs = [
            weight[..., None] * torch.nn.functional.pad(d, (0, self._target.g.size - d.shape[-1]))
            for d, weight in zip(self._target.g.latest, weighted.unbind(1), strict=True)
        ]
        # M += (e / S) sum_mu Delta_mu cg_mu cx_mu^T
        pulled = torch.stack(outputs).sum(0)
        self._learned.step(pulled.mT, c, 1 / self._source.samples, dynamics)
        # The part along W(0) has no gradient of its own: it only decays.
        nothing = torch.zeros_like(self._kept.value)
        self._kept.step(nothing, nothing, 1.0, dynamics)

    def parameters(self) -> list[Parameter]:
        return [self._learned, self._kept]

    @property
    def coordinates_shown(self) -> tuple[Tensor, list[Tensor]]:
        """Those last used: of the activations [R, P, kx], and of the gradients of each output [R, P, kg]."""
        ((_, c),) = self._shown_forward
        return c, [d for _, d in self._shown_backward]

    def responses_shown(self) -> tuple[Tensor, list[Tensor]]:
        """Products of the fields last used with what was fresh in V and in Y: alpha, and beta by output
        (responses.py)."""
        ((through_rows, c),) = self._shown_forward
        from_y = self._core - self._from_v
        rows = through_rows.shape[-1]
        alpha = through_rows - c @ from_y[:, :rows, : c.shape[-1]].mT
        beta = [
            through_columns - d @ self._from_v[:, : d.shape[-1], : through_columns.shape[-1]]
            for through_columns, d in self._shown_backward
        ]
        return alpha, beta

    def _reveal_columns(self, directions: Tensor) -> None:
        column = self._target.population.fresh(directions.shape[1])
        if self._responses:
            known = directions @ self._v.all.mT
            column = torch.baddbmm(column, known, self._target.g.basis)
            self._core = torch.cat([self._core, known.mT], dim=2)
            self._from_v = torch.cat([self._from_v, known.mT], dim=2)
        self._y.append(column)
        self._learned.grow(0, directions.shape[1])

    def _reveal_rows(self, directions: Tensor) -> None:
        row = self._source.population.fresh(directions.shape[1])
        if self._responses:
            known = directions @ self._y.all.mT
            row = torch.baddbmm(row, known, self._source.phi.basis)
            self._core = torch.cat([self._core, known], dim=1)
            self._from_v = torch.nn.functional.pad(self._from_v, (0, 0, 0, directions.shape[1]))
        self._v.append(row)
        self._learned.grow(directions.shape[1], 0)


class RevealedFixedFeedback(RevealedMatrix):
    """Carries errors back by a second matrix, independent of the first and never trained."""

    def __init__(self, source: Layer, target: Layer) -> None:
        super().__init__(source, target, responses=False)

    def apply_transpose(self, g: Tensor) -> Tensor:
        d, new = self._target.observe(self._target.g, g)
        if new is not None:
            self._reveal_rows(new)
        return d @ self._v.all


class RevealedNoFeedback(RevealedMatrix):
    """Carries no errors back: the layer below hears of them by another way."""

    def __init__(self, source: Layer, target: Layer) -> None:
        super().__init__(source, target, responses=False)

    def apply_transpose(self, g: Tensor) -> Tensor:
        _, new = self._target.observe(self._target.g, g)
        if new is not None:
            self._learned.grow(new.shape[1], 0)
        return torch.zeros_like(g)


class DenseMatrix:
    """An explicit matrix for each member of an ensemble."""

    def __init__(self, initial: Tensor) -> None:
        """Take W [R, N, N] with standard normal entries."""
        self._scaled = Parameter(initial / initial.shape[-1] ** 0.5)

    def apply(self, x: Tensor) -> Tensor:
        return x @ self._scaled.value.mT

    def apply_transpose(self, g: Tensor) -> Tensor:
        return g @ self._scaled.value

    def update(self, x: Tensor, g: Tensor, weighted: Tensor, dynamics: Dynamics) -> None:
        pulled = (weighted[..., None] * g).sum(dim=1)
        self._scaled.step(pulled.mT, x, 1 / x.shape[-1], dynamics)

    def parameters(self) -> list[Parameter]:
        return [self._scaled]


class DenseFixedFeedback(DenseMatrix):
    """Carries errors back by a second matrix, independent of the first and never trained."""

    def __init__(self, initial: Tensor, feedback: Tensor) -> None:
        """Take W and the transpose of the other, both [R, N, N] with standard normal entries."""
        super().__init__(initial)
        self._feedback = feedback / feedback.shape[-1] ** 0.5

    def apply_transpose(self, g: Tensor) -> Tensor:
        return g @ self._feedback


class DenseNoFeedback(DenseMatrix):
    """Carries no errors back: the layer below hears of them by another way."""

    def apply_transpose(self, g: Tensor) -> Tensor:
        return torch.zeros_like(g)
