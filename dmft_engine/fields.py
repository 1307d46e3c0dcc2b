"""The fields of one network at one time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Fields:
    """Attributes, for R replicas, P points (test points last), S neurons, C outputs:

    phi: activations phi(h^l) for l = 1..L, each [R, P, S].
    g: gradients g^l = sqrt(N) d(gamma f)/dh^l for l = 1..L, each [R, C, P, S].
    output: gamma0 N f = w . phi(h^L), [R, P, C].
    """

    phi: list[Tensor]
    g: list[Tensor]
    output: Tensor

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
        """K(t, t) = sum_{l=0..L} G^{l+1} Phi^l, [R, C, P, C, P] (theory section 1)."""
        depth = len(self.phi)
        total = self.g_gram(1) * input_kernel[None, None, :, None, :]
        for layer in range(1, depth + 1):
            total = total + self.g_gram(layer + 1) * self.phi_gram(layer)[:, None, :, None, :]
        return total
