"""How training moves the weights. One entry in DYNAMICS adds one."""

from __future__ import annotations

from collections.abc import Callable

from dmft_engine.training.gradient_descent import descend
from dmft_engine.training.gradient_flow import flow
from dmft_engine.training.training_run import TrainingRun

DYNAMICS: dict[str, Callable[[TrainingRun], None]] = {"gradient_descent": descend, "gradient_flow": flow}
"""Each trains a run to its end, recording on the way; it raises Diverged or Cancelled."""


def train(run: TrainingRun) -> None:
    """By the dynamics that the run's problem names."""
    DYNAMICS[run.problem.training.dynamics](run)
