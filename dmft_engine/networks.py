"""Architectures: each one forward pass over weights objects. One entry in ARCHITECTURES adds one.

The same pass gives the infinite-width limit, its approximations and finite networks: only the weights
differ. Gradients come from ordinary backpropagation through it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dmft_engine.activations import Activation
from dmft_engine.fields import Fields
from dmft_engine.weights import Weights, matvec

Forward = Callable[[Weights, Callable[[Tensor], Tensor]], list[tuple[Tensor, Tensor]]]
"""(weights, phi) -> (h^l, phi(h^l)) for l = 1..L, connected for autograd."""


def mlp(weights: Weights, phi: Callable[[Tensor], Tensor]) -> list[tuple[Tensor, Tensor]]:
    """h^1 = W^0 x / sqrt(D);  h^{l+1} = W^l phi(h^l) / sqrt(N) (theory section 1)."""
    sigma = weights.scales.weights
    h = weights.preactivation(0, sigma[0] * weights.input.apply()).requires_grad_(True)
    layers = [(h, phi(h))]
    for layer, matrix in enumerate(weights.hidden, start=1):
        h = weights.preactivation(layer, matvec(matrix, layers[-1][1], sigma[layer]))
        layers.append((h, phi(h)))
    return layers


ARCHITECTURES: dict[str, Forward] = {"mlp": mlp}


def propagate(forward: Forward, activation: Activation, weights: Weights, gradient_points: int) -> Fields:
    """One forward and one backward pass: the fields at the current weights.

    f_mu depends on h_mu alone, so one backward pass of the sum over mu yields every g_mu; there is
    one for each output. Points from `gradient_points` on get g = 0: nothing is revealed for them.
    """
    weights.start_step()
    with torch.enable_grad():
        layers = forward(weights, activation.function)
        output = weights.scales.weights[-1] * weights.readout.apply(layers[-1][1])
        hidden = [h for h, _ in layers]
        outputs = output[:, :gradient_points].sum((0, 1)).unbind(-1)
        g = [
            torch.autograd.grad(value, hidden, retain_graph=index + 1 < len(outputs))
            for index, value in enumerate(outputs)
        ]
    fields = Fields(
        phi=[phi.detach() for _, phi in layers],
        g=[torch.stack(layer, dim=1) for layer in zip(*g, strict=True)],
        output=output.detach(),
        scales=weights.scales,
    )
    weights.observe_rest(fields)
    return fields
