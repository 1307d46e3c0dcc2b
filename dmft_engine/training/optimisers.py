"""What a step does with gradients. An Update is made anew for each step, from the recipe.

What it keeps of a parameter from step to step lies in the parameter's slots, and grows with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dmft_engine.weights.parameter import Parameter

VELOCITY = "velocity"


@dataclass(frozen=True)
class Sgd:
    """v <- momentum v - step - decay theta,  theta <- theta + v (theory section 2).

    Attributes:
        momentum: mu.
        decay: eta lambda at this step.
    """

    momentum: float
    decay: float

    def __call__(self, parameter: Parameter, left: Tensor, right: Tensor, alpha: float) -> None:
        if self.momentum == 0:
            if self.decay:
                parameter.value.mul_(1 - self.decay)
            parameter.value.baddbmm_(left, right, alpha=alpha)
            return
        velocity = parameter.slots.setdefault(VELOCITY, torch.zeros_like(parameter.value))
        velocity.mul_(self.momentum).add_(parameter.value, alpha=-self.decay)
        velocity.baddbmm_(left, right, alpha=alpha)
        parameter.value.add_(velocity)


@dataclass(frozen=True)
class Slope:
    """The time derivative of gradient flow, kept in a slot: theta' = -gradient - decay theta. Nothing moves.

    Attributes:
        slot: where.
        decay: lambda.
    """

    slot: str
    decay: float

    def __call__(self, parameter: Parameter, left: Tensor, right: Tensor, alpha: float) -> None:
        parameter.slots[self.slot] = torch.baddbmm(
            parameter.value, left, right, beta=-self.decay, alpha=alpha
        )
