"""Responses A and B of a hidden matrix, read off what revealing it has shown (theory sections 1 and 2).

A row of W(0) is V = (what the columns before it say) + omega, and r(s) = sigma sum_i d_i(s) omega_i is the
Gaussian part of W^T g(s). By Stein's lemma <phi(t) r(s)> = sum_{s'<t} A(t, s') <r(s') r(s)>: A is what writes
the products alpha(t) = omega . phi(t) as a combination of the coordinates of earlier gradients,

    alpha(t) = sigma sum_{s<t} A(t, s) d(s),     beta(t) = sigma sum_{s<=t} B(t, s) c(s).

The equal-time part of B is known beforehand: its diagonal <phi'' z> + sigma^2 <phi'^2> B^{l+1}(t, t).
Fields at different times are close to linearly dependent, and so are these equations: of all responses
that act alike on the fields, A G and B Phi being the same, the smallest is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from dmft_engine.factorisation import pseudo_inverse
from dmft_engine.model.activations import Activation
from dmft_engine.model.fields import Fields
from dmft_engine.state import Stateful
from dmft_engine.weights.matrices import RevealedMatrix

DEPENDENT = 1e-4
"""Squared length, over the largest, below which a combination of fields counts as zero. What it leaves out
of A G and B Phi is of the order of its root."""


def equal_time_responses(activation: Activation, fields: Fields) -> list[Tensor]:
    """B^l(t, t) for l = 1..L-1, each the diagonal [R, C, P]."""
    found: list[Tensor] = []
    above: Tensor | float = 0.0
    for layer in reversed(range(1, len(fields.h))):
        _, first, second = activation.with_two_derivatives(fields.h[layer])
        bend = (second[:, None] * fields.z[layer]).mean(-1)
        through = fields.scales.weights[layer + 1] ** 2 * first.square().mean(-1)[:, None]
        above = bend + through * above
        found.insert(0, above)
    return found


@dataclass
class ResponseRecord(Stateful):
    """What one hidden matrix has shown, step by step; tensors [R, points (times outputs), k]."""

    kept: ClassVar[tuple[str, ...]] = ("alpha", "beta", "phi", "g", "equal_time")

    sigma: float
    points: int
    alpha: list[Tensor] = field(default_factory=list)
    beta: list[Tensor] = field(default_factory=list)
    phi: list[Tensor] = field(default_factory=list)
    g: list[Tensor] = field(default_factory=list)
    equal_time: list[Tensor] = field(default_factory=list)

    def record(self, matrix: RevealedMatrix, equal_time: Tensor) -> None:
        """Keep the current step."""
        alpha, betas = matrix.responses_shown()
        c, ds = matrix.coordinates_shown
        self.alpha.append(alpha[:, : self.points])
        self.beta.append(_by_output([beta[:, : self.points] for beta in betas]))
        self.phi.append(c[:, : self.points])
        self.g.append(_by_output([d[:, : self.points] for d in ds]))
        self.equal_time.append(equal_time[:, :, : self.points].flatten(1))

    def a(self, steps: list[int], check: Callable[[], None]) -> Tensor:
        """A between the given steps, [R, K, P, K, C P]."""
        return self._solved(self.alpha, self.g, steps, check)

    def b(self, steps: list[int], check: Callable[[], None]) -> Tensor:
        """B between the given steps, [R, K, C P, K, P]."""
        rest = []
        for beta, c, diagonal in zip(self.beta, self.phi, self.equal_time, strict=True):
            direct = diagonal[..., None] * c.repeat(1, diagonal.shape[1] // c.shape[1], 1)
            rest.append(beta - self.sigma * _padded(direct, beta.shape[-1]))
        response = self._solved(rest, self.phi, steps, check)
        for index, step in enumerate(steps):
            own = self.equal_time[step].unflatten(1, (-1, self.points))
            blocks = response[:, index, :, index].unflatten(1, (-1, self.points))
            blocks.diagonal(dim1=2, dim2=3).copy_(own)
        return response

    def _solved(
        self, products: list[Tensor], sources: list[Tensor], steps: list[int], check: Callable[[], None]
    ) -> Tensor:
        """The strictly causal response that makes the products from the sources before."""
        width = max(sources[-1].shape[-1], products[-1].shape[-1])
        stacked = torch.stack([_padded(source, width).double() for source in sources], dim=1)
        replicas, rows = products[0].shape[:2]
        response = stacked.new_zeros(replicas, len(steps), rows, len(steps), stacked.shape[2])
        for index, step in enumerate(steps):
            if step == 0:
                continue
            check()
            past = stacked[:, :step].flatten(1, 2)
            inverse = pseudo_inverse(past.mT @ past, DEPENDENT)
            target = _padded(products[step], width).double()
            solved = (target @ inverse @ past.mT).unflatten(2, (step, -1)) / self.sigma
            response[:, index, :, :index] = solved[:, :, steps[:index]]
        return response


def _padded(block: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(block, (0, width - block.shape[-1]))


def _by_output(blocks: list[Tensor]) -> Tensor:
    """[R, C P, k] of one block [R, P, k] for each output; k may have grown in between."""
    width = max(block.shape[-1] for block in blocks)
    return torch.cat([_padded(block, width) for block in blocks], dim=1)
