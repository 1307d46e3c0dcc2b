"""Averages over two correlated Gaussian numbers, in closed form (theory section 5).

For (u, v) ~ N(0, [[a, c], [c, b]]), whatever a, b >= 0 and |c| <= sqrt(a b) are: each form keeps its
relative precision where points coincide, are opposite or vanish, which the textbook ones (arccos and arcsin
of a correlation) do not. Sums of terms of either sign are within rounding of sqrt(<f(u)^2> <f(v)^2>), the
unit in which an entry of a kernel matters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pairs:
    """Covariances of n pairs (u, v).

    Attributes:
        a: <u u>, [n].
        b: <v v>, [n].
        c: <u v>, [n].
        root: sqrt(a b - c^2), [n], as precise as a, b and c are.
    """

    a: Tensor
    b: Tensor
    c: Tensor
    root: Tensor

    @classmethod
    def of(cls, a: Tensor, b: Tensor, c: Tensor) -> Pairs:
        """Rounding is mended: negative variances become 0, correlations beyond 1 become 1."""
        a, b = a.clamp_min(0), b.clamp_min(0)
        c = torch.where((a > 0) & (b > 0), c, torch.zeros_like(c))
        # In powers of two, which cost no digit: products neither overflow nor vanish.
        of_a, of_b = (
            torch.frexp(a)[1].div(2, rounding_mode="floor"),
            torch.frexp(b)[1].div(2, rounding_mode="floor"),
        )
        one = torch.ones_like(a)
        scaled_a, scaled_b = torch.ldexp(a, -2 * of_a), torch.ldexp(b, -2 * of_b)
        scaled_c = torch.ldexp(torch.ldexp(c, -of_a), -of_b)
        high, low = _product(scaled_a, scaled_b)
        high_c, low_c = _product(scaled_c, scaled_c)
        determinant = ((high - high_c) + (low - low_c)).clamp_min(0)
        return cls(a, b, c, determinant.sqrt() * torch.ldexp(one, of_a) * torch.ldexp(one, of_b))

    def rounded_otherwise(self) -> Pairs:
        """With correlations smaller by a rounding, but for points that coincide."""
        rounding = torch.finfo(self.c.dtype).eps
        apart = self.root > 0
        c = torch.where(apart, (1 - rounding) * self.c, self.c)
        root = torch.hypot(self.root, math.sqrt(2 * rounding) * self.c)
        return Pairs(self.a, self.b, c, torch.where(apart, root, self.root))


Averages = Callable[[Pairs], tuple[Tensor, Tensor]]
"""Pairs -> (<phi(u) phi(v)>, <phi'(u) phi'(v)>), each [n]."""


def _product(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """x y = high + low without any rounding (Dekker 1971)."""
    high = x * y

    def halves(value: Tensor) -> tuple[Tensor, Tensor]:
        shifted = 134217729.0 * value  # 2^27 + 1
        upper = shifted - (shifted - value)
        return upper, value - upper

    (x1, x2), (y1, y2) = halves(x), halves(y)
    return high, x2 * y2 - (((high - x1 * y1) - x2 * y1) - x1 * y2)


def _minus_arctangent(x: Tensor) -> Tensor:
    """x - arctan(x) for x >= 0, relatively precise."""
    square = x.square().clamp_max(0.01)
    series = torch.zeros_like(x)
    for power in range(17, 1, -2):
        series = 1 / power - square * series
    return torch.where(x < 0.1, x * square * series, x - torch.atan(x))


def rectified(root: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """<relu(u) relu(v)> and the probability that u and v > 0, of any shape.

    Cho and Saul (2009), degrees 1 and 0, with the angle between u and v from its tangent root / c.
    """
    beyond = torch.atan2(root, -c)  # pi - angle
    value = root + beyond * c
    opposite = c < 0
    size = torch.where(opposite, -c, torch.ones_like(c))
    value = torch.where(opposite, size * _minus_arctangent(root / size), value)
    return value / (2 * math.pi), beyond / (2 * math.pi)


def linear(pairs: Pairs) -> tuple[Tensor, Tensor]:
    return pairs.c, torch.ones_like(pairs.c)


def quadratic(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Of u^2, by Wick's theorem."""
    return pairs.a * pairs.b + 2 * pairs.c.square(), 4 * pairs.c


def relu(pairs: Pairs) -> tuple[Tensor, Tensor]:
    value, both = rectified(pairs.root, pairs.c)
    # relu'(0) = 0, as for every method here.
    return value, torch.where((pairs.a > 0) & (pairs.b > 0), both, torch.zeros_like(both))


def erf(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Williams (1997), for phi(x) = erf(x), with arcsin as an arctangent."""
    root = torch.hypot((1 + 2 * (pairs.a + pairs.b)).sqrt(), 2 * pairs.root)
    return 2 / math.pi * torch.atan2(2 * pairs.c, root), 4 / math.pi / root


def sine(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """<sin sin> and <cos cos>: exp(-<(u -+ v)^2> / 2) halved, and subtracted or added."""
    c = pairs.c.abs()
    # Halves of the smaller of <(u -+ v)^2>, without rounding where the exponential does not vanish.
    closer = torch.exp(-((pairs.a - c) + (pairs.b - c)).clamp_min(0) / 2)
    return -closer * torch.expm1(-2 * c) / 2 * pairs.c.sign(), closer * (1 + torch.exp(-2 * c)) / 2


def gelu(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Of u Phi(u), Phi the normal distribution (Tsuchida, Pearce et al. 2020), by Stein's lemma.

    With D = (1 + a)(1 + b) - c^2 and the angle of cosine c / sqrt((1 + a)(1 + b)),

        2 pi <phi phi>   = c (pi - angle) + (a b sqrt(D) + c^2 / sqrt(D)) / ((1 + a)(1 + b))
        2 pi <phi' phi'> = pi - angle + c (1 / (1 + a) + 1 / (1 + b)) / sqrt(D) + c / D^(3/2)
    """
    a, b, c = pairs.a, pairs.b, pairs.c
    root = torch.hypot((1 + a + b).sqrt(), pairs.root)
    beyond = torch.atan2(root, -c)
    mixed = c / (1 + a) * (c / (1 + b)) / root
    value = c * beyond + a / (1 + a) * (b / (1 + b)) * root + mixed
    # Opposite points: sqrt(D) is taken out of both parts, which nearly cancel.
    opposite = root < -c
    size = torch.where(opposite, -c, torch.ones_like(c))
    apart = mixed - root * ((1 + a + b) / (1 + a) / (1 + b))
    value = torch.where(opposite, size * _minus_arctangent(root / size) + apart, value)
    slope = beyond + c / root * (1 / (1 + a) + 1 / (1 + b)) + c / root / root / root
    return value / (2 * math.pi), slope / (2 * math.pi)


def relu_mean(variance: Tensor) -> Tensor:
    """<relu(u)> = sqrt(a / 2 pi)."""
    return (variance.clamp_min(0) / (2 * math.pi)).sqrt()


def gelu_mean(variance: Tensor) -> Tensor:
    """<u Phi(u)> = a / sqrt(2 pi (1 + a)), by Stein's lemma."""
    variance = variance.clamp_min(0)
    return variance / (2 * math.pi * (1 + variance)).sqrt()
