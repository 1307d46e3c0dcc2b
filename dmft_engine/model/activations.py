"""Activation functions. One entry here (and its name in dmft_schema.request) adds one.

Derivatives come from autograd. `kernel_map` is the closed form of the Gaussian averages where one is
known; `static_ntk` uses quadrature otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

KernelMap = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Covariance [P, P] -> (<phi(u) phi(u')>, <phi'(u) phi'(u')>), both [P, P], for u ~ GP(0, covariance)."""


@dataclass(frozen=True)
class Activation:
    """phi, applied to each neuron.

    Attributes:
        function: elementwise, differentiable by autograd.
        kernel_map: closed-form Gaussian averages, or None.
    """

    function: Callable[[Tensor], Tensor]
    kernel_map: KernelMap | None = None

    def with_derivative(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """phi(h) and phi'(h), each of h's shape."""
        with torch.enable_grad():
            leaf = h.detach().requires_grad_(True)
            value = self.function(leaf)
            (derivative,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), derivative

    def with_two_derivatives(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """phi(h), phi'(h) and phi''(h), each of h's shape; phi'' = 0 almost everywhere if phi has kinks."""
        with torch.enable_grad():
            leaf = h.detach().requires_grad_(True)
            value = self.function(leaf)
            (first,) = torch.autograd.grad(value.sum(), leaf, create_graph=True)
            second = torch.zeros_like(leaf)
            if first.requires_grad:
                (found,) = torch.autograd.grad(first.sum(), leaf, allow_unused=True)
                second = second if found is None else found
        return value.detach(), first.detach(), second.detach()


def _linear_map(covariance: Tensor) -> tuple[Tensor, Tensor]:
    return covariance, torch.ones_like(covariance)


def _relu_map(covariance: Tensor) -> tuple[Tensor, Tensor]:
    # Cho and Saul (2009), degrees 1 and 0.
    scale = covariance.diagonal().clamp_min(0).sqrt()
    norms = scale[:, None] * scale[None, :]
    cosine = torch.where(norms > 0, covariance / norms.clamp_min(1e-300), torch.zeros_like(norms))
    cosine = cosine.clamp(-1, 1)
    angle = torch.arccos(cosine)
    value = norms * (torch.sqrt(1 - cosine**2) + (math.pi - angle) * cosine) / (2 * math.pi)
    return value, (math.pi - angle) / (2 * math.pi)


def _erf_map(covariance: Tensor) -> tuple[Tensor, Tensor]:
    # Williams (1997), for phi(x) = erf(x).
    scale = 1 + 2 * covariance.diagonal()
    product = scale[:, None] * scale[None, :]
    value = 2 / math.pi * torch.asin(2 * covariance / product.sqrt())
    derivative = 4 / math.pi / torch.sqrt(product - 4 * covariance**2)
    return value, derivative


ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation(lambda h: h, _linear_map),
    "tanh": Activation(torch.tanh),
    "relu": Activation(torch.relu, _relu_map),
    "erf": Activation(torch.erf, _erf_map),
    "gelu": Activation(torch.nn.functional.gelu),
    "softplus": Activation(torch.nn.functional.softplus),
    "sin": Activation(torch.sin),
    "quadratic": Activation(torch.square),
}
