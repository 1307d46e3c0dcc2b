"""Training losses. One entry here (and its name in dmft_schema.request) adds one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """A loss averaged over training points.

    Attributes:
        reported: (f, y), both [..., P, C] -> [...]: what a loss curve shows.
        errors: (f, y) -> Delta = -d ell / d f, [..., P, C] (theory section 1).
    """

    reported: Callable[[Tensor, Tensor], Tensor]
    errors: Callable[[Tensor, Tensor], Tensor]


def _squared(f: Tensor, y: Tensor) -> Tensor:
    return (f - y).square().sum(dim=-1).mean(dim=-1)


LOSSES: dict[str, Loss] = {
    # ell = (f - y)^2 / 2, shown as (f - y)^2 like the authors' plots.
    "mse": Loss(reported=_squared, errors=lambda f, y: y - f),
}
