"""Weight matrices as objects with a product in each direction.

The forward pass (networks.py) is written once over them. Fields are [R, P, S]: replicas, points,
neurons; every hidden matrix here is W / sqrt(N) of theory section 1.

    RevealedMatrix   known only along the directions training visits  -> the infinite-width limit
    DenseMatrix      an explicit N x N array                          -> a finite network
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dmft_engine.fields import Fields, Scales
from dmft_engine.population import Layer, Population
from dmft_engine.recipe import Dynamics
from dmft_engine.subspace import Rows


class Parameter:
    """A tensor [R, a, b] that training moves, with the velocity that momentum gives it."""

    def __init__(self, value: Tensor) -> None:
        self.value = value
        self._velocity: Tensor | None = None

    def step(self, left: Tensor, right: Tensor, alpha: float, dynamics: Dynamics) -> None:
        """One step: v <- mu v + alpha left right - decay theta, theta <- theta + v.

        Args:
            left, right: [R, a, n] and [R, n, b]; their product is minus the gradient.
            alpha: its factor.
            dynamics: momentum and decay.
        """
        if dynamics.momentum == 0:
            if dynamics.decay:
                self.value.mul_(1 - dynamics.decay)
            self.value.baddbmm_(left, right, alpha=alpha)
            return
        if self._velocity is None:
            self._velocity = torch.zeros_like(self.value)
        self._velocity.mul_(dynamics.momentum).add_(self.value, alpha=-dynamics.decay)
        self._velocity.baddbmm_(left, right, alpha=alpha)
        self.value.add_(self._velocity)

    def grow(self, rows: int, columns: int) -> None:
        """Append rows and columns of zeros."""
        self.value = torch.nn.functional.pad(self.value, (0, columns, 0, rows))
        if self._velocity is not None:
            self._velocity = torch.nn.functional.pad(self._velocity, (0, columns, 0, rows))


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
    """

    def __init__(self, source: Population, target: Population, responses: bool) -> None:
        """Without `responses` the two directions know nothing of each other: Y and V are fresh alone."""
        self._responses = responses
        self._source = source
        self._target = target
        prototype = source.phi.basis
        like = (source.replicas, source.samples, prototype.dtype, str(prototype.device))
        self._y = Rows(*like)
        self._v = Rows(*like)
        self._core = prototype.new_zeros(source.replicas, 0, 0)
        self._learned = Parameter(prototype.new_zeros(source.replicas, 0, 0))
        self._kept = 1.0
        self._kept_velocity = 0.0

    def apply(self, x: Tensor) -> Tensor:
        c, new = self._source.observe(self._source.phi, x)
        if new is not None:
            self._reveal_columns(new)
        # W(0) x = Y c + Qg (V^T r) + |r| omega with r = x - Qx c; the fresh noise |r| omega is dropped.
        coefficients = c @ self._learned.value.mT
        if self._responses:
            coefficients += self._kept * (x @ self._v.all.mT - c @ self._core.mT)
        return torch.baddbmm((self._kept * c) @ self._y.all, coefficients, self._target.g.basis)

    def apply_transpose(self, g: Tensor) -> Tensor:
        d, new = self._target.observe(self._target.g, g)
        if new is not None:
            self._reveal_rows(new)
        # W(0)^T g = V d + Qx (Y^T r) + |r| omega with r = g - Qg d.
        coefficients = d @ self._learned.value
        if self._responses:
            coefficients += self._kept * (g @ self._y.all.mT - d @ self._core)
        return torch.baddbmm((self._kept * d) @ self._v.all, coefficients, self._source.phi.basis)

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
        self._kept_velocity = dynamics.momentum * self._kept_velocity - dynamics.decay * self._kept
        self._kept += self._kept_velocity

    def _reveal_columns(self, directions: Tensor) -> None:
        known_part = self._responses * (directions @ self._v.all.mT)
        fresh = self._target.fresh(directions.shape[1])
        self._y.append(torch.baddbmm(fresh, known_part, self._target.g.basis))
        self._core = torch.cat([self._core, known_part.mT], dim=2)
        self._learned.grow(0, directions.shape[1])

    def _reveal_rows(self, directions: Tensor) -> None:
        known_part = self._responses * (directions @ self._y.all.mT)
        fresh = self._source.fresh(directions.shape[1])
        self._v.append(torch.baddbmm(fresh, known_part, self._source.phi.basis))
        self._core = torch.cat([self._core, known_part], dim=1)
        self._learned.grow(directions.shape[1], 0)


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


class InputMatrix:
    """W^0, seen through a factor of the input kernel: h^1 = X W^0 with K^x = X X^T."""

    def __init__(self, initial: Tensor, kernel_factor: Tensor) -> None:
        """Take W^0 [R, rank, S] with standard normal entries, and X [P, rank]."""
        self._weights = Parameter(initial)
        self._factor = kernel_factor.expand(len(initial), -1, -1)

    def apply(self) -> Tensor:
        """h^1 [R, P, S]."""
        return self._factor @ self._weights.value

    def update(self, g: Tensor, weighted: Tensor, dynamics: Dynamics) -> None:
        """See HiddenMatrix.update; the inputs are fixed."""
        self._weights.step(self._factor.mT, (weighted[..., None] * g).sum(dim=1), 1.0, dynamics)


class Bias:
    """b^l, one number for each neuron, the same for all points."""

    def __init__(self, initial: Tensor) -> None:
        """Take b [R, 1, S] with standard normal entries."""
        self._weights = Parameter(initial)

    def apply(self) -> Tensor:
        """[R, 1, S]."""
        return self._weights.value

    def update(self, g: Tensor, weighted: Tensor, dynamics: Dynamics) -> None:
        """b += sum_mu weighted[c, mu] g_{mu, c}."""
        self._weights.step(weighted.flatten(1)[:, None], g.flatten(1, 2), 1.0, dynamics)


class Readout:
    """The last layer's weights w, one vector for each output."""

    def __init__(self, initial: Tensor) -> None:
        """Take w [R, C, S] with standard normal entries."""
        self._weights = Parameter(initial)

    def apply(self, x: Tensor) -> Tensor:
        """w . x for activations x [R, P, S]: [R, P, C]."""
        return x @ self._weights.value.mT

    def update(self, x: Tensor, weighted: Tensor, dynamics: Dynamics) -> None:
        """w_c += sum_mu weighted[c, mu] x_mu, for activations x [R, P, S]."""
        self._weights.step(weighted, x, 1.0, dynamics)


class RevealedReadout(Readout):
    """A readout drawn once the first activations are known, so that f(0) = 0 exactly."""

    def __init__(self, population: Population, outputs: int) -> None:
        self._population = population
        self._outputs = outputs
        self._drawn = False

    def apply(self, x: Tensor) -> Tensor:
        self._population.observe(self._population.phi, x.detach())
        if not self._drawn:
            super().__init__(self._population.gaussian(self._outputs))
            self._drawn = True
        return super().apply(x)


@dataclass
class Weights:
    """All weights of one network, and the layers whose fields they make.

    Attributes:
        input: W^0.
        hidden: W^1 .. W^{L-1}.
        readout: W^L = w.
        layers: one for each hidden layer.
        scales: initialisation scales of all of them.
        biases: b^0 .. b^{L-1}, or none.
    """

    input: InputMatrix
    hidden: Sequence[HiddenMatrix]
    readout: Readout
    layers: Sequence[Layer]
    scales: Scales
    biases: Sequence[Bias] = ()

    def preactivation(self, layer: int, product: Tensor) -> Tensor:
        """h^{l+1} = sigma_l W^l x + sigma_b b^l, from the product sigma_l W^l x."""
        return product + self.scales.bias * self.biases[layer].apply() if self.biases else product

    def start_step(self) -> None:
        """Forget the coordinates of the step before."""
        for layer in self.layers:
            layer.phi.latest.clear()
            layer.g.latest.clear()

    def observe_rest(self, fields: Fields) -> None:
        """Show each layer the fields that no matrix has shown it."""
        for layer, phi, g in zip(self.layers, fields.phi, fields.g, strict=True):
            if not layer.phi.latest:
                layer.observe(layer.phi, phi)
            if not layer.g.latest:
                for output in g.unbind(1):
                    layer.observe(layer.g, output)

    def update(self, fields: Fields, weighted: Tensor, dynamics: Dynamics) -> None:
        """One gradient step; `weighted` [R, C, P] is gamma0 eta / P times the errors."""
        sigma = self.scales.weights
        self.input.update(fields.g[0], sigma[0] * weighted, dynamics)
        for layer, matrix in enumerate(self.hidden, start=1):
            matrix.update(fields.phi[layer - 1], fields.g[layer], sigma[layer] * weighted, dynamics)
        for bias, g in zip(self.biases, fields.g, strict=bool(self.biases)):
            bias.update(g, self.scales.bias * weighted, dynamics)
        self.readout.update(fields.phi[-1], sigma[-1] * weighted, dynamics)
