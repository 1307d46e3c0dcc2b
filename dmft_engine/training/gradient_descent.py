"""Gradient descent through training."""

from __future__ import annotations

from dmft_engine.model.recipe import Recipe
from dmft_engine.training.optimisers import Sgd
from dmft_engine.training.training_run import TrainingRun


def descend(run: TrainingRun) -> None:
    """Train by steps of the learning rate, recording before each."""
    recipe = Recipe(run.problem.training, run.problem.data.points)
    for step in range(run.problem.training.steps):
        fields = run.fields(step)
        f = run.predictions(fields, step)
        run.record(step, fields, f)
        optimiser = Sgd(run.problem.training.momentum, recipe.decay(step))
        run.update(fields, f, recipe.weighting(step, f), optimiser)
