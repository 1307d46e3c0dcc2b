"""How training moves the weights. One entry in DYNAMICS adds one."""

from __future__ import annotations

from dmft_engine.training.gradient_descent import Descent
from dmft_engine.training.gradient_flow import Flow
from dmft_engine.training.trainer import Trainer
from dmft_engine.training.training_run import TrainingRun

DYNAMICS: dict[str, type[Trainer]] = {"gradient_descent": Descent, "gradient_flow": Flow}


def trainer(run: TrainingRun) -> Trainer:
    """By the dynamics that the run's problem names."""
    return DYNAMICS[run.problem.training.dynamics](run)
