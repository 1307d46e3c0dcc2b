"""The NTK, weight by weight: sums over rows of products of gradients and of what they multiply."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dmft_engine.populations.node import Seen
from dmft_engine.weights.windows import WHOLE, Window

MOST_ENTRIES = 1 << 25
"""Products between rows that are held at once."""


def tangent_kernel(
    x: Tensor,
    g: Tensor,
    points: int,
    reach: Callable[[Tensor], Tensor] | None = None,
    neurons: int | None = None,
) -> Tensor:
    """sum_{a, a'} (g_{mu a} . g_{nu a'} / S) (x_{mu a} . x_{nu a'} / S), [R, C, P, C, P].

    Args:
        x: what the weights multiply, [R, P A, S].
        g: gradients of their products, [R, C, P A', S'].
        points: P; rows are positions within points.
        reach: from products between rows of x to sums of products between rows of g, where those are others.
        neurons: what to divide products of x by; S if None.
    """
    replicas, outputs, rows, samples = g.shape
    others = g.flatten(1, 2).mT
    together = max(1, MOST_ENTRIES // (replicas * outputs**2 * (rows // points) * rows))
    parts = []
    for first in range(0, points, together):
        some = slice(first, min(first + together, points))
        of_x = x.unflatten(1, (points, -1))[:, some].flatten(1, 2) @ x.mT / (neurons or x.shape[-1])
        if reach is not None:
            of_x = reach(of_x)
        mine = g.unflatten(2, (points, -1))[:, :, some].flatten(1, 3)
        of_g = (mine @ others / samples).unflatten(2, (outputs, rows)).unflatten(1, (outputs, -1))
        # [R, C, p A, C, P A]
        product = of_g * of_x[:, None, :, None, :]
        positions = rows // points
        parts.append(product.unflatten(4, (points, positions)).unflatten(2, (-1, positions)).sum((3, 6)))
    return torch.cat(parts, dim=2)


def together(fields: list[Tensor], points: int) -> Tensor:
    """Fields [R, rows, S] of several uses as one of more positions, [R, P A, S]."""
    if len(fields) == 1:
        return fields[0]
    return torch.cat([field.unflatten(1, (points, -1)) for field in fields], dim=2).flatten(1, 2)


def tangent_of_uses(x: list[Tensor], g: list[Tensor], points: int, window: Window) -> Tensor:
    """`tangent_kernel` of a matrix that was used several times in a pass.

    Args:
        x: what it multiplied, [R, rows, S] for each use.
        g: gradients, [R, rows', S'] for each use of each output in turn.
        points: P.
        window: which rows it joins.
    """
    uses = len(x)
    gradients = torch.stack([together(g[i : i + uses], points) for i in range(0, len(g), uses)], dim=1)
    if uses == 1 or window is WHOLE:
        return tangent_kernel(together(x, points), gradients, points, window.forward.gram)
    spread = together([window.forward.spread(field) for field in x], points)
    return tangent_kernel(spread, gradients, points, neurons=x[0].shape[-1])


def whole(seen: list[Seen]) -> list[Tensor]:
    """Fields [R, rows, S]."""
    return [s.field for s in seen]


def in_bases(seen: list[Seen]) -> list[Tensor]:
    """[R, rows, k], whose products over k are those over S neurons of what bases keep of the fields."""
    width = max(s.coordinates.shape[-1] for s in seen)
    return [
        torch.nn.functional.pad(s.coordinates, (0, width - s.coordinates.shape[-1]))
        * (width / s.field.shape[-1]) ** 0.5
        for s in seen
    ]
