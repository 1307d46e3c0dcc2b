"""The fields of one network at one time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from dmft_schema.network import LayeredNetwork


@dataclass(frozen=True)
class Scales:
    """Standard deviations of the parameters at initialisation.

    Attributes:
        weights: sigma_0 .. sigma_L; those of residual branches times the branch scale.
        bias: sigma_b.
    """

    weights: tuple[float, ...]
    bias: float

    @classmethod
    def ones(cls, depth: int) -> Scales:
        """All weights of unit variance, no biases."""
        return cls((1.0,) * (depth + 1), 0.0)

    @classmethod
    def of(cls, network: LayeredNetwork) -> Scales:
        scales = list(network.weight_scales or [1.0] * (network.depth + 1))
        if network.architecture == "residual":
            # h^{l+1} = h^l + (beta / sqrt(L)) W^l phi(h^l): the factor is a scale like any other.
            branch = network.branch_scale / network.depth**0.5
            scales[1:-1] = [branch * scale for scale in scales[1:-1]]
        return cls(tuple(scales), network.bias_scale)


def layered_ntk(scales: Scales, phi: Iterable[Tensor], g: Iterable[Tensor]) -> Tensor:
    """K = sum_{l=0..L} sigma_l^2 G^{l+1} Phi^l + sum_{l<L} sigma_b^2 G^{l+1}, at equal times.

    Args:
        scales: of the weights.
        phi: Phi^l for l = 0..L, each [.., A, A]; that of layer 0 is K^x.
        g: G^{l+1} for l = 0..L, each [.., C, A, C, A].

    Returns:
        [.., C, A, C, A].
    """
    total: Tensor | None = None
    last = len(scales.weights) - 1
    for layer, (inner, outer) in enumerate(zip(phi, g, strict=True)):
        bias = scales.bias**2 if layer < last else 0.0
        inner = scales.weights[layer] ** 2 * inner + bias
        term = outer * inner[..., None, :, None, :]
        total = term if total is None else total + term
    assert total is not None
    return total


@dataclass(frozen=True)
class Fields:
    """Attributes, for R replicas, P points (test points last), S neurons, C outputs:

    h: preactivations h^l for l = 1..L, each [R, P, S].
    phi: activations phi(h^l), the same.
    g: gradients g^l = sqrt(N) d(gamma f)/dh^l for l = 1..L, each [R, C, P, S].
    z: sqrt(N) d(gamma f)/d phi(h^l), the same; g^l = phi'(h^l) z^l (in a residual network, of the branch).
    output: gamma0 N f = sigma_L w . phi(h^L), [R, P, C].
    scales: of the weights that made them.
    """

    h: list[Tensor]
    phi: list[Tensor]
    g: list[Tensor]
    z: list[Tensor]
    output: Tensor
    scales: Scales

    @property
    def readable(self) -> Tensor:
        """What the readout's vectors are multiplied with, for the points in order, [R, P, S]."""
        return self.phi[-1]

    @property
    def neurons(self) -> int:
        """S, of a population."""
        return self.h[-1].shape[-1]

    def phi_gram(self, layer: int) -> Tensor:
        """Phi^l(t, t) [R, P, P], l = 1..L."""
        phi = self.phi[layer - 1]
        return phi @ phi.mT / phi.shape[-1]

    def g_gram(self, layer: int) -> Tensor:
        """G^l(t, t) [R, C, P, C, P], l = 1..L; G^{L+1} is the identity between outputs."""
        if layer == len(self.g) + 1:
            replicas, points, outputs = self.output.shape
            identity = torch.eye(outputs, dtype=self.output.dtype, device=self.output.device)
            return identity[None, :, None, :, None].expand(replicas, outputs, points, outputs, points)
        g = self.g[layer - 1]
        flat = g.flatten(1, 2)
        return (flat @ flat.mT / g.shape[-1]).unflatten(2, g.shape[1:3]).unflatten(1, g.shape[1:3])

    def ntk(self, input_kernel: Tensor) -> Tensor:
        """K(t, t) = sum_{l=0..L} sigma_l^2 G^{l+1} Phi^l + sum_{l<L} sigma_b^2 G^{l+1}, [R, C, P, C, P]."""
        phi = [input_kernel, *(self.phi_gram(layer) for layer in range(1, len(self.phi) + 1))]
        g = [self.g_gram(layer) for layer in range(1, len(self.phi) + 2)]
        return layered_ntk(self.scales, phi, g)
