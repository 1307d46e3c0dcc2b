"""Training losses. One entry here (and its name in dmft_schema.request) adds one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus


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


def _logistic(f: Tensor, y: Tensor) -> Tensor:
    return softplus(-y * f).sum(dim=-1).mean(dim=-1)


def _hinge(f: Tensor, y: Tensor) -> Tensor:
    return (1 - y * f).clamp_min(0).sum(dim=-1).mean(dim=-1)


def _cross_entropy(f: Tensor, y: Tensor) -> Tensor:
    return -(y * f.log_softmax(dim=-1)).sum(dim=-1).mean(dim=-1)


LOSSES: dict[str, Loss] = {
    # ell = (f - y)^2 / 2, shown as (f - y)^2 like the authors' plots.
    "mse": Loss(reported=_squared, errors=lambda f, y: y - f),
    # ell = log(1 + exp(-y f)), y = +-1
    "logistic": Loss(reported=_logistic, errors=lambda f, y: y * torch.sigmoid(-y * f)),
    # ell = max(0, 1 - y f), y = +-1
    "hinge": Loss(reported=_hinge, errors=lambda f, y: torch.where(y * f < 1, y, torch.zeros_like(f))),
    # ell = -sum_c y_c log softmax(f)_c, rows of y on the simplex
    "cross_entropy": Loss(reported=_cross_entropy, errors=lambda f, y: y - f.softmax(dim=-1)),
}


def reported_and_errors(name: str, f: NDArray, y: NDArray) -> tuple[float, NDArray]:
    """The reported loss and the errors Delta [P, C] for arrays f, y [P, C]."""
    loss = LOSSES[name]
    outputs, targets = torch.tensor(f), torch.tensor(y)
    return float(loss.reported(outputs, targets)), loss.errors(outputs, targets).numpy()
