"""Architectures: each one forward pass over weights objects. One entry in ARCHITECTURES adds one.

The same pass gives the infinite-width limit, its approximations and finite networks: only the weights
differ. Gradients come from ordinary backpropagation through it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dmft_engine.model.activations import ACTIVATIONS, Activation
from dmft_engine.model.composition import Composition
from dmft_engine.model.fields import Fields
from dmft_engine.weights.matrices import matvec
from dmft_engine.weights.weights import Weights
from dmft_schema.network import LayeredNetwork, Network

Forward = Callable[[Weights, Callable[[Tensor], Tensor]], list[tuple[Tensor, Tensor]]]
"""(weights, phi) -> (h^l, phi(h^l)) for l = 1..L, connected for autograd."""


def _layered(weights: Weights, phi: Callable[[Tensor], Tensor], skips: bool) -> list[tuple[Tensor, Tensor]]:
    sigma = weights.scales.weights
    h = weights.preactivation(0, sigma[0] * weights.input.apply()).requires_grad_(True)
    layers = [(h, phi(h))]
    for layer, matrix in enumerate(weights.hidden, start=1):
        branch = weights.preactivation(layer, matvec(matrix, layers[-1][1], sigma[layer]))
        h = h + branch if skips else branch
        layers.append((h, phi(h)))
    return layers


def mlp(weights: Weights, phi: Callable[[Tensor], Tensor]) -> list[tuple[Tensor, Tensor]]:
    """h^1 = W^0 x / sqrt(D);  h^{l+1} = W^l phi(h^l) / sqrt(N) (theory section 1)."""
    return _layered(weights, phi, skips=False)


def residual(weights: Weights, phi: Callable[[Tensor], Tensor]) -> list[tuple[Tensor, Tensor]]:
    """h^{l+1} = h^l + (beta / sqrt(L)) W^l phi(h^l) / sqrt(N), the factor being part of sigma_l."""
    return _layered(weights, phi, skips=True)


@dataclass(frozen=True)
class Architecture:
    """A network.

    Attributes:
        forward: its forward pass.
        skips: whether h^l is part of h^{l+1}: then all layers have the same neurons, and kernels add up.
    """

    forward: Forward
    skips: bool


ARCHITECTURES: dict[str, Architecture] = {
    "mlp": Architecture(mlp, skips=False),
    "residual": Architecture(residual, skips=True),
}


AnyWeights = Weights | Composition
"""Of a network, whichever way it is described."""


def passes(network: Network, weights: AnyWeights) -> Callable[[int], Fields]:
    """What gives the fields at the current weights; see propagate's last argument."""
    if isinstance(weights, Composition):
        return weights.propagate
    assert isinstance(network, LayeredNetwork)
    forward, activation = ARCHITECTURES[network.architecture].forward, ACTIVATIONS[network.activation]
    return partial(propagate, forward, activation, weights)


def propagate(forward: Forward, activation: Activation, weights: Weights, gradient_points: int) -> Fields:
    """One forward and one backward pass: the fields at the current weights.

    f_mu depends on h_mu alone, so one backward pass of the sum over mu yields every g_mu; there is
    one for each output. Points from `gradient_points` on get g = 0: nothing is revealed for them.
    """
    weights.start_step()
    with torch.enable_grad():
        layers = forward(weights, activation.function)
        hidden, activations = zip(*layers, strict=True)
        output = weights.scales.weights[-1] * weights.readout.apply(layers[-1][1])
        signal = weights.signal(output, activations)
        outputs = signal[:, :gradient_points].sum((0, 1)).unbind(-1)
        # z and g, layer by layer, for each output.
        found = [
            torch.autograd.grad(value, [*activations, *hidden], retain_graph=index + 1 < len(outputs))
            for index, value in enumerate(outputs)
        ]
    gradients = [torch.stack(field, dim=1) for field in zip(*found, strict=True)]
    fields = Fields(
        h=[h.detach() for h in hidden],
        phi=[phi.detach() for phi in activations],
        g=gradients[len(layers) :],
        z=gradients[: len(layers)],
        output=output.detach(),
        scales=weights.scales,
    )
    weights.finish_step(fields)
    return fields
