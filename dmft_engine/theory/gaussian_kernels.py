"""Kernels at initialisation by the layer recursions: no sampling (theory section 5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dmft_engine.model.activations import Activation
from dmft_engine.model.fields import Scales
from dmft_engine.model.gaussian_averages import Averages, Pairs
from dmft_engine.model.logistic_mixture import NODES
from dmft_schema.memory import CHUNK_BYTES

JUDGED_POINTS = 32
"""Points of either kind on which the error of the kernels is estimated: they need no others for it."""


def gaussian_averages(averages: Averages, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """<phi(u) phi(u')> and <phi'(u) phi'(u')> for u ~ GP(0, covariance), each [P, P] and symmetric."""
    variances = covariance.diagonal()
    rows, columns = torch.triu_indices(len(covariance), len(covariance), device=covariance.device)
    found = covariance.new_empty(2, len(rows))
    size = CHUNK_BYTES["static"] // (8 * 8 * 2 * NODES)
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        row, column = rows[part], columns[part]
        both = (covariance[row, column] + covariance[column, row]) / 2
        found[:, part] = torch.stack(averages(Pairs.of(variances[row], variances[column], both)))
    matrices = covariance.new_empty(2, *covariance.shape)
    matrices[:, rows, columns] = found
    matrices[:, columns, rows] = found
    return matrices[0], matrices[1]


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


def initial_kernels(averages: Averages, input_kernel: Tensor, scales: Scales, skips: bool) -> InitialKernels:
    """Phi^l = <phi phi> under GP(0, H^l) and G^l, by recursion over layers (paper, section 5).

        H^1 = sigma_0^2 K^x + sigma_b^2;    H^{l+1} = (H^l) + sigma_l^2 Phi^l + sigma_b^2
        G^L = sigma_L^2 <phi' phi'>;        G^l = G^{l+1} ((1) + sigma_l^2 <phi' phi'>)
        K^1 = H^1;                          K^{l+1} = H^{l+1} (- H^l) + K^l ((1) + sigma_l^2 <phi' phi'>)

    with H the NNGP and K the NTK of each layer (Jacot et al. 2018).

    Args:
        averages: <phi phi> and <phi' phi'>.
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
            value, derivative = gaussian_averages(averages, nngp[-1])
            phi.append(value)
            derivatives.append(derivative)
    g = [torch.ones_like(input_kernel)]
    for derivative, sigma in zip(reversed(derivatives), reversed(scales.weights[1:]), strict=True):
        through = sigma**2 * derivative
        g.insert(0, g[0] * (1 + through if skips and len(g) > 1 else through))
    return InitialKernels(phi=phi, g=g, nngp=nngp, ntk_by_layer=tangent, scales=scales)


def kernel_error(activation: Activation, kernels: InitialKernels, skips: bool) -> float:
    """Estimate of the largest error of an entry over sqrt(K_aa K_bb), from rounding and quadrature.

    The recursion is run again with covariances that differ by a rounding in every layer, and with twice the
    nodes where there are any, for points of all norms and for those that are closest to another up to sign,
    which a network with large weights drives apart.
    """
    inputs = kernels.phi[0]
    some = _judged(inputs)
    again = activation.finer or activation.averages
    other = initial_kernels(
        lambda pairs: again(pairs.rounded_otherwise()), inputs[some][:, some], kernels.scales, skips
    )

    def error(found: Tensor, better: Tensor) -> float:
        root = better.diagonal().clamp_min(0).sqrt()
        size = (root[:, None] * root[None, :]).clamp_min(torch.finfo(better.dtype).tiny)
        return float(((found[some][:, some] - better).abs() / size).max())

    return max(
        error(found, better)
        for mine, theirs in (
            (kernels.phi, other.phi),
            (kernels.g, other.g),
            (kernels.nngp, other.nngp),
            (kernels.ntk_by_layer, other.ntk_by_layer),
        )
        for found, better in zip(mine, theirs, strict=True)
    )


def _judged(inputs: Tensor) -> Tensor:
    variances = inputs.diagonal()
    count = min(len(inputs), JUDGED_POINTS)
    evenly = torch.linspace(0, len(inputs) - 1, count).round().long().to(inputs.device)
    root = variances.clamp_min(torch.finfo(inputs.dtype).tiny).sqrt()
    cosine = (inputs / root[:, None] / root[None, :]).abs().fill_diagonal_(0)
    # Points that coincide are taken as such, without an error.
    closest, partner = torch.where(cosine < 1, cosine, 0).max(1)
    near = closest.topk(count // 2).indices
    return torch.cat([variances.argsort()[evenly], near, partner[near]]).unique()
