"""Activation functions. One entry here (and its name in dmft_schema.request) adds one.

Derivatives come from autograd, averages over Gaussian fields from gaussian_averages.py and
logistic_mixture.py; tests/engine/test_gaussian_averages.py judges those of every entry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dmft_engine.model import gaussian_averages as closed
from dmft_engine.model import logistic_mixture as mixture
from dmft_engine.model.gaussian_averages import Averages


@dataclass(frozen=True)
class Activation:
    """phi, applied to each neuron.

    Attributes:
        function: elementwise, differentiable by autograd.
        averages: <phi phi> and <phi' phi'> over correlated Gaussian fields.
        finer: the same by a rule with twice the nodes, which gives their error; None if in closed form.
        mean: <phi(u)> over a Gaussian field, from its variance; None if phi is odd, where it is 0.
    """

    function: Callable[[Tensor], Tensor]
    averages: Averages
    finer: Averages | None = None
    mean: Callable[[Tensor], Tensor] | None = None

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


ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation(lambda h: h, closed.linear),
    "tanh": Activation(torch.tanh, mixture.tanh(mixture.NODES), mixture.tanh(2 * mixture.NODES)),
    "relu": Activation(torch.relu, closed.relu, mean=closed.relu_mean),
    "erf": Activation(torch.erf, closed.erf),
    "gelu": Activation(torch.nn.functional.gelu, closed.gelu, mean=closed.gelu_mean),
    "softplus": Activation(
        torch.nn.functional.softplus,
        mixture.softplus(mixture.NODES),
        mixture.softplus(2 * mixture.NODES),
        mean=mixture.softplus_mean,
    ),
    "sin": Activation(torch.sin, closed.sine),
    "quadratic": Activation(torch.square, closed.quadratic, mean=lambda variance: variance),
}
