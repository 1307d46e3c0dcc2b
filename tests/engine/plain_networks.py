"""Wide networks of theory sections 8 to 12 in plain torch, with no code of the project: judges of the limit.

Each takes unit normal weights by name and shape, and gives F = gamma0 sqrt(N) f of points [P, ...]: its
tangent kernel, the sum over weights of dF dF', is the NTK.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from numpy.typing import NDArray
from torch import Tensor

Weights = Callable[..., Tensor]
"""(name, *shape) -> unit normal numbers, the same whenever the name is."""

Network = Callable[[Weights, int, Tensor], Tensor]
"""(weights, width N, inputs [P, ...]) -> [P]."""


def dense(weights: Weights, name: str, width: int, x: Tensor) -> Tensor:
    return x @ weights(name, x.shape[-1], width) / x.shape[-1] ** 0.5


def rms(h: Tensor) -> Tensor:
    return h / h.square().mean(-1, keepdim=True).sqrt()


def layer_norm(h: Tensor) -> Tensor:
    return (h - h.mean(-1, keepdim=True)) / h.var(-1, correction=0, keepdim=True).sqrt()


def recurrent(weights: Weights, width: int, x: Tensor) -> Tensor:
    """One matrix at all times, sigma_w 1.4, tanh, read out at the last."""
    h = dense(weights, "u", width, x[:, 0])
    for time in range(1, x.shape[1]):
        h = 1.4 * dense(weights, "w", width, torch.tanh(h)) + dense(weights, "u", width, x[:, time])
    return dense(weights, "readout", 1, torch.tanh(h))[:, 0]


def recurrent_mean(weights: Weights, width: int, x: Tensor) -> Tensor:
    """Softplus, which is not 0 at 0; then ReLU, and the mean over times is read out."""
    h, read = torch.zeros(()), []
    for time in range(x.shape[1]):
        fed = dense(weights, "u", width, x[:, time])
        h = fed + dense(weights, "w", width, torch.nn.functional.softplus(h)) if time else fed
        read.append(torch.relu(h))
    return dense(weights, "readout", 1, torch.stack(read).mean(0))[:, 0]


def rms_of_fields(weights: Weights, width: int, x: Tensor) -> Tensor:
    """Norms of h: large weights, so that their derivative would show."""
    h = 2 * dense(weights, "1", width, x) + 0.5 * weights("b", width)
    h = 1.5 * dense(weights, "2", width, torch.tanh(rms(h)))
    return dense(weights, "readout", 1, torch.tanh(rms(h)))[:, 0]


def layer_norm_of_activations(weights: Weights, width: int, x: Tensor) -> Tensor:
    """Of ReLU's and GELU's values, whose means are not 0."""
    n = layer_norm(torch.relu(dense(weights, "1", width, x)))
    n = layer_norm(torch.nn.functional.gelu(1.5 * dense(weights, "2", width, n)))
    return dense(weights, "readout", 1, torch.tanh(dense(weights, "3", width, n)))[:, 0]


def branch_of_activations(weights: Weights, width: int, x: Tensor) -> Tensor:
    """A stream and a branch that end in activations, with means that multiply; then a mean over positions."""
    stream = torch.relu(dense(weights, "1", width, x))
    n = rms(stream + 0.7 * torch.nn.functional.softplus(dense(weights, "2", width, stream)))
    h = dense(weights, "3", width, n.mean(1))
    return dense(weights, "readout", 1, torch.tanh(h))[:, 0]


def learned_norms(weights: Weights, width: int, x: Tensor) -> Tensor:
    """With gains that begin at 1 and offsets that begin at 0, both trained; matrices follow them."""

    def trained(name: str, start: float, like: Tensor) -> Tensor:
        # Of the weight's gradient alone: its value is `start`.
        weight = weights(name, width)
        return weight - weight.detach() + start + 0 * like

    n = layer_norm(torch.tanh(dense(weights, "1", width, x)))
    n = trained("gain", 1.0, n) * n + trained("offset", 0.0, n)
    n = rms(dense(weights, "2", width, n))
    h = dense(weights, "3", width, trained("gain 2", 1.0, n) * n)
    return dense(weights, "readout", 1, torch.relu(h))[:, 0]


def attended(weights: Weights, width: int, x: Tensor) -> Tensor:
    """A stream, attention with heads of 2 neurons in a branch behind a norm, tanh, the mean over tokens."""
    stream = dense(weights, "1", width, x)
    n = rms(stream)
    by_head = (len(x), x.shape[1], width // 2, 2)
    q, k, v = (dense(weights, name, width, n).view(by_head).transpose(1, 2) for name in "qkv")
    mixed = (q @ k.mT / 2**0.5).softmax(-1) @ v
    branch = dense(weights, "o", width, mixed.transpose(1, 2).flatten(2))
    return dense(weights, "readout", 1, torch.tanh(stream + branch).mean(1))[:, 0]


def causal(weights: Weights, width: int, x: Tensor) -> Tensor:
    """Heads of one neuron that see what came before; the last token."""
    stream = dense(weights, "1", width, x)
    by_head = (len(x), x.shape[1], width, 1)
    q, k, v = (dense(weights, name, width, stream).view(by_head).transpose(1, 2) for name in "qkv")
    later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
    mixed = (q @ k.mT).masked_fill(later, -torch.inf).softmax(-1) @ v
    h = dense(weights, "o", width, mixed.transpose(1, 2).flatten(2))
    return dense(weights, "readout", 1, torch.relu(h)[:, -1])[:, 0]


def sampled_kernels(
    network: Network, inputs: NDArray, widths: tuple[int, int], draws: int, seed: int = 0
) -> tuple[NDArray, NDArray]:
    """The NTK at t = 0 without its 1 / N, by Richardson, and its standard error, each [P, P]."""
    x = torch.tensor(inputs, dtype=torch.float64)
    means, errors = [], []
    for width in widths:
        generator = torch.Generator().manual_seed(seed * 10_000 + width)
        found = torch.stack([_tangent(network, x, width, generator) for _ in range(draws)])
        means.append(found.mean(0))
        errors.append(found.std(0) / draws**0.5)
    ratio = widths[1] / widths[0]
    limit = (ratio * means[1] - means[0]) / (ratio - 1)
    error = torch.hypot(ratio * errors[1], errors[0]) / (ratio - 1)
    return limit.numpy(), error.numpy()


def _tangent(network: Network, x: Tensor, width: int, generator: torch.Generator) -> Tensor:
    known: dict[str, Tensor] = {}

    def weights(name: str, *shape: int) -> Tensor:
        if name not in known:
            drawn = torch.randn(*shape, generator=generator, dtype=torch.float64)
            known[name] = drawn.requires_grad_(True)
        return known[name]

    output = network(weights, width, x)
    leaves = list(known.values())
    rows = [
        torch.cat([part.flatten() for part in torch.autograd.grad(value, leaves, retain_graph=True)])
        for value in output
    ]
    gradients = torch.stack(rows)
    return gradients @ gradients.mT
