"""Averages over two correlated Gaussian numbers by means that share no code with the engine.

Smooth activations by nested Gauss-Legendre panels, graded from the activation's own scale to that of the
Gaussian; activations whose averages are elementary by their textbook formulas with 60 digits.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import mpmath
import numpy as np
from numpy.typing import NDArray
from scipy import special

Function = Callable[[NDArray], NDArray]
NORMAL = 1 / np.sqrt(2 * np.pi)

SMOOTH: dict[str, tuple[Function, Function]] = {
    "tanh": (np.tanh, lambda u: 4 * special.expit(2 * u) * special.expit(-2 * u)),
    "erf": (special.erf, lambda u: 2 / np.sqrt(np.pi) * np.exp(-(u**2))),
    "gelu": (
        lambda u: u * special.ndtr(u),
        lambda u: special.ndtr(u) + u * NORMAL * np.exp(-(u**2) / 2),
    ),
    "softplus": (lambda u: np.logaddexp(0, u), special.expit),
}
"""phi and phi', whose structure is all within a few units of 0."""

LEGENDRE = np.polynomial.legendre.leggauss(16)
OUTWARDS = np.concatenate([np.arange(8), 8 * 1.5 ** np.arange(20)])
GRADED = np.concatenate([-OUTWARDS[:0:-1], OUTWARDS])
IN_DEVIATIONS = np.linspace(-10, 10, 21)


def _normal_rule(mean: NDArray, deviation: float) -> tuple[NDArray, NDArray]:
    """Nodes and weights [n, m] for the average over N(mean, deviation^2), for means [n]."""
    reach = deviation * IN_DEVIATIONS
    # Offsets from the mean, which may be far larger than the deviation.
    own = (GRADED - mean[:, None]).clip(reach[0], reach[-1])
    edges = np.sort(np.concatenate([np.broadcast_to(reach, (len(mean), len(reach))), own], axis=1), axis=1)
    halves, middles = np.diff(edges) / 2, (edges[:, 1:] + edges[:, :-1]) / 2
    offsets = middles[..., None] + halves[..., None] * LEGENDRE[0]
    density = NORMAL / deviation * np.exp(-((offsets / deviation) ** 2) / 2)
    nodes = offsets + mean[:, None, None]
    return nodes.reshape(len(mean), -1), (halves[..., None] * LEGENDRE[1] * density).reshape(len(mean), -1)


def by_panels(function: Function, a: float, b: float, c: float) -> float:
    """<f(u) f(v)> for (u, v) ~ N(0, [[a, c], [c, b]])."""
    if a < b:
        # Of the two, the wider is integrated last: the mean of the other then varies no faster.
        a, b = b, a
    if a == 0:
        return float(function(np.zeros(1))[0] ** 2)
    u, weights = (x[0] for x in _normal_rule(np.zeros(1), a**0.5))
    first = function(u) * weights
    rest = Fraction(a) * Fraction(b) - Fraction(c) ** 2
    if rest <= 0:
        # c was rounded past sqrt(a b), or b is 0.
        return float(first @ function(np.sign(c) * np.sqrt(b / a) * u))
    deviation = float(mpmath.sqrt(mpmath.mpf(rest.numerator) / rest.denominator / a))
    total = 0.0
    for part in np.array_split(np.arange(len(u)), 20):
        nodes, inner = _normal_rule(c / a * u[part], deviation)
        total += float(first[part] @ (function(nodes) * inner).sum(1))
    return total


def elementary(name: str, a: float, b: float, c: float) -> tuple[float, float]:
    """<phi phi> and <phi' phi'> of linear, quadratic, sin and relu."""
    with mpmath.workdps(60):
        x, y, z = mpmath.mpf(a), mpmath.mpf(b), mpmath.mpf(c)
        if name == "linear":
            found = (z, mpmath.mpf(1))
        elif name == "quadratic":
            found = (x * y + 2 * z**2, 4 * z)
        elif name == "sin":
            decay = mpmath.exp(-(x + y) / 2)
            found = (decay * mpmath.sinh(z), decay * mpmath.cosh(z))
        elif x == 0 or y == 0:
            found = (mpmath.mpf(0), mpmath.mpf(0))
        else:
            norm = mpmath.sqrt(x * y)
            cosine = max(mpmath.mpf(-1), min(mpmath.mpf(1), z / norm))
            angle = mpmath.acos(cosine)
            value = norm * (mpmath.sin(angle) + (mpmath.pi - angle) * cosine) / (2 * mpmath.pi)
            found = (value, (mpmath.pi - angle) / (2 * mpmath.pi))
        return float(found[0]), float(found[1])


def recursion(
    name: str, covariance: NDArray, sigmas: list[float], bias: float, residual: bool
) -> tuple[NDArray, NDArray]:
    """NNGP and NTK of the output of two points, [2, 2], by the recursion of Jacot et al. (2018)."""
    places = [(0, 0), (0, 1), (1, 1)]
    phi = [float(covariance[place]) for place in places]
    slopes, nngp, ntk = [0.0] * 3, [0.0] * 3, [0.0] * 3
    for layer, sigma in enumerate(sigmas):
        hidden = layer + 1 < len(sigmas)
        skip = 1.0 if residual and hidden and layer else 0.0
        shift = bias**2 if hidden else 0.0
        through = [skip + sigma**2 * slope for slope in slopes]
        added = [sigma**2 * value + shift for value in phi]
        ntk = [new + factor * old for new, factor, old in zip(added, through, ntk, strict=True)]
        nngp = [new + skip * old for new, old in zip(added, nngp, strict=True)]
        if hidden:
            a, c, b = nngp
            found = [averages(name, *triple) for triple in ((a, a, a), (a, b, c), (b, b, b))]
            phi, slopes = [value for value, _ in found], [slope for _, slope in found]
    return tuple(np.array([[k[0], k[1]], [k[1], k[2]]]) for k in (nngp, ntk))  # type: ignore[return-value]


def averages(name: str, a: float, b: float, c: float) -> tuple[float, float]:
    """<phi phi> and <phi' phi'>."""
    if name in SMOOTH:
        return by_panels(SMOOTH[name][0], a, b, c), by_panels(SMOOTH[name][1], a, b, c)
    return elementary(name, a, b, c)
