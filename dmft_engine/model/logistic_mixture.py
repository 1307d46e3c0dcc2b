"""tanh and softplus as mixtures of activations whose Gaussian averages are known (theory section 5).

A logistic variable is 2 k z, with z standard normal and k > 0 of Kolmogorov's distribution (Andrews and
Mallows 1974). Hence, averaged over k, for all x

    tanh(x) = <erf(x / (k sqrt 2))>,    softplus(x) = <relu smoothed by a Gaussian of width 2 k>.

Averages over (u, v) become averages over two independent k, k' of closed forms in which only the variances
have grown, by k^2 and k'^2. They depend on log k smoothly, on one scale, whatever the covariance of (u, v):
Gauss's rule for the distribution of log k converges geometrically, by about 1 / 8 with each node, and all
terms are positive or of one sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmft_engine.model.gaussian_averages import Averages, Pairs, rectified, relu_mean

NODES = 14
"""Error below 1e-14: the rule of 12 nodes is off by 1e-13, and 24 change nothing."""


def _kolmogorov(k: NDArray) -> NDArray:
    """Density of Kolmogorov's distribution (that of sqrt(n) times the distance of two distributions)."""
    odd, count = np.arange(1, 40, 2)[:, None], np.arange(1, 20)[:, None]
    squares = (odd * math.pi / 2) ** 2
    small = math.sqrt(2 * math.pi) * (np.exp(-squares / (2 * k**2)) * (squares / k**4 - 1 / k**2)).sum(0)
    large = 8 * k * ((-1.0) ** (count - 1) * count**2 * np.exp(-2 * (count * k) ** 2)).sum(0)
    return np.where(k < 1, small, large)


@cache
def _rule(nodes: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Values of k and their probabilities: Gauss's rule in log k, by Lanczos (Golub and Welsch 1969)."""
    log_k = np.linspace(math.log(0.1), math.log(7), 2000)
    k = np.exp(log_k)
    density = _kolmogorov(k) * k
    vectors = [np.sqrt(density / density.sum())]
    diagonal, beside = [], []
    for _ in range(nodes):
        image = log_k * vectors[-1]
        diagonal.append(image @ vectors[-1])
        for _ in range(2):
            for known in vectors:
                image = image - (known @ image) * known
        beside.append(np.linalg.norm(image))
        vectors.append(image / beside[-1])
    tridiagonal = np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
    values, eigenvectors = np.linalg.eigh(tridiagonal)
    return tuple(np.exp(values)), tuple(eigenvectors[0] ** 2)


def _mixed(
    pairs: Pairs, width: float, nodes: int, term: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """term(sqrt(a b - c^2), c) averaged over a + (width k)^2 and b + (width k')^2."""
    scales, probabilities = _rule(nodes)
    weights = torch.tensor(probabilities).to(pairs.c)
    squares = (width * torch.tensor(scales).to(pairs.c)).square()[:, None]
    c = pairs.c.expand(nodes, -1)
    value, slope = torch.zeros_like(pairs.c), torch.zeros_like(pairs.c)
    for square, weight in zip(squares, weights, strict=True):
        more = (square * squares + square * pairs.b + squares * pairs.a).sqrt()
        first, second = term(torch.hypot(more, pairs.root.expand(nodes, -1)), c)
        value += weight * (weights @ first)
        slope += weight * (weights @ second)
    return value, slope


def tanh(nodes: int) -> Averages:
    """By the closed form of erf (Williams 1997), its derivative by Price's theorem."""

    def term(root: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return 2 / math.pi * torch.atan2(c, root), 2 / math.pi / root

    return lambda pairs: _mixed(pairs, 1.0, nodes, term)


def softplus(nodes: int) -> Averages:
    """By the closed form of ReLU (Cho and Saul 2009)."""
    return lambda pairs: _mixed(pairs, 2.0, nodes, rectified)


def softplus_mean(variance: Tensor) -> Tensor:
    """<softplus(u)>: that of ReLU at variance a + 4 k^2, over k."""
    scales, probabilities = (torch.tensor(numbers).to(variance) for numbers in _rule(NODES))
    return relu_mean(variance.clamp_min(0)[..., None] + 4 * scales.square()) @ probabilities
