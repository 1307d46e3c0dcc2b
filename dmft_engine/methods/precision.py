"""The precision a method works in: its name, and whether it will do for a longer run."""

from __future__ import annotations

import torch

from dmft_engine.errors import TooLittlePrecision
from dmft_engine.methods.method import StartOver
from dmft_engine.training.rounding import Imprecise, Rounding


def name_of(dtype: torch.dtype) -> str:
    """As requests and results spell it."""
    return str(dtype).removeprefix("torch.")


def judge_longer(rounding: Rounding) -> None:
    """Look whether a run that was good enough for its steps is for more of them.

    Raises:
        StartOver: it is not.
    """
    try:
        rounding.judge_again()
    except (Imprecise, TooLittlePrecision) as refused:
        raise StartOver(f"so many steps ask for more precision: {refused}") from refused
