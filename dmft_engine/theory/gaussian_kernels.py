"""Kernels at initialisation by the layer recursions: exact, no sampling (theory section 5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dmft_engine.model.activations import Activation
from dmft_engine.model.fields import Scales
from dmft_schema.memory import CHUNK_BYTES

QUADRATURE_NODES = 64


def gaussian_averages(activation: Activation, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """<phi(u) phi(u')> and <phi'(u) phi'(u')> for u ~ GP(0, covariance), each [P, P].

    By the activation's closed form, or else by Gauss-Hermite quadrature in two dimensions.
    """
    if activation.kernel_map is not None:
        return activation.kernel_map(covariance)
    return (
        _quadrature(activation.function, covariance),
        _quadrature(lambda u: activation.with_derivative(u)[1], covariance),
    )


def _quadrature(function: Callable[[Tensor], Tensor], covariance: Tensor) -> Tensor:
    # hermegauss is for the weight exp(-x^2 / 2); its weights sum to sqrt(2 pi).
    nodes_array, weights_array = np.polynomial.hermite_e.hermegauss(QUADRATURE_NODES)
    nodes = torch.as_tensor(nodes_array).to(covariance)
    weights = torch.as_tensor(weights_array / np.sqrt(2 * np.pi)).to(covariance)
    scale = covariance.diagonal().clamp_min(0).sqrt()
    safe = scale.clamp_min(torch.finfo(covariance.dtype).tiny ** 0.5)
    cosine = (covariance / (safe[:, None] * safe[None, :])).clamp(-1, 1)
    # u = s x and u' = s' (c x + sqrt(1 - c^2) y) with x, y independent standard normals.
    first = function(scale[:, None] * nodes) * weights
    rows = max(1, CHUNK_BYTES["static"] // (8 * 8 * len(scale) * QUADRATURE_NODES**2))
    blocks = []
    for start in range(0, len(scale), rows):
        c = cosine[start : start + rows, :, None, None]
        second = scale[None, :, None, None] * (c * nodes[:, None] + (1 - c.square()).sqrt() * nodes[None, :])
        inner = function(second) @ weights
        blocks.append((first[start : start + rows, None, :] * inner).sum(-1))
    average = torch.cat(blocks)
    return (average + average.T) / 2


@dataclass(frozen=True)
class InitialKernels:
    """Kernels at t = 0, for P points (scalar over outputs: distinct outputs are uncorrelated).

    Attributes:
        phi: Phi^l for l = 0..L, each [P, P]; phi[0] is K^x.
        g: G^l for l = 1..L+1, each [P, P]; g[-1] is all ones.
        nngp: covariance of h^l for l = 1..L, and of the output, each [P, P].
        ntk_by_layer: tangent kernel of h^l for l = 1..L, and of the output, each [P, P].
        scales: sigma_0 .. sigma_L and sigma_b.
    """

    phi: list[Tensor]
    g: list[Tensor]
    nngp: list[Tensor]
    ntk_by_layer: list[Tensor]
    scales: Scales

    @property
    def ntk(self) -> Tensor:
        """K = sum_{l=0..L} sigma_l^2 G^{l+1} Phi^l + sum_{l<L} sigma_b^2 G^{l+1}, [P, P]."""
        depth = len(self.phi) - 1
        terms = [
            g * (sigma**2 * phi + (self.scales.bias**2 if layer < depth else 0.0))
            for layer, (g, phi, sigma) in enumerate(zip(self.g, self.phi, self.scales.weights, strict=True))
        ]
        return torch.stack(terms).sum(0)


def initial_kernels(
    activation: Activation, input_kernel: Tensor, scales: Scales, skips: bool
) -> InitialKernels:
    """Phi^l = <phi phi> under GP(0, H^l) and G^l, by recursion over layers (paper, section 5).

        H^1 = sigma_0^2 K^x + sigma_b^2;    H^{l+1} = (H^l) + sigma_l^2 Phi^l + sigma_b^2
        G^L = sigma_L^2 <phi' phi'>;        G^l = G^{l+1} ((1) + sigma_l^2 <phi' phi'>)
        K^1 = H^1;                          K^{l+1} = H^{l+1} (- H^l) + K^l ((1) + sigma_l^2 <phi' phi'>)

    with H the NNGP and K the NTK of each layer (Jacot et al. 2018).

    Args:
        activation: phi.
        input_kernel: [P, P], K^x.
        scales: sigma_0 .. sigma_L and sigma_b.
        skips: whether the terms in brackets are there (networks.py).
    """
    phi = [input_kernel]
    derivatives: list[Tensor] = []
    nngp: list[Tensor] = []
    tangent: list[Tensor] = []
    for layer, sigma in enumerate(scales.weights):
        last = layer + 1 == len(scales.weights)
        skipping = skips and layer > 0 and not last
        added = sigma**2 * phi[-1] + (0.0 if last else scales.bias**2)
        if layer == 0:
            tangent.append(added)
        else:
            through = sigma**2 * derivatives[-1]
            tangent.append(added + tangent[-1] * (1 + through if skipping else through))
        nngp.append(nngp[-1] + added if skipping else added)
        if not last:
            value, derivative = gaussian_averages(activation, nngp[-1])
            phi.append(value)
            derivatives.append(derivative)
    g = [torch.ones_like(input_kernel)]
    for derivative, sigma in zip(reversed(derivatives), reversed(scales.weights[1:]), strict=True):
        through = sigma**2 * derivative
        g.insert(0, g[0] * (1 + through if skips and len(g) > 1 else through))
    return InitialKernels(phi=phi, g=g, nngp=nngp, ntk_by_layer=tangent, scales=scales)
