"""Gradient descent through training."""

from __future__ import annotations

from dmft_engine.model.recipe import Recipe
from dmft_engine.training.optimisers import Sgd
from dmft_engine.training.trainer import Trainer
from dmft_engine.training.training_run import TrainingRun


class Descent(Trainer):
    """Steps of the learning rate, each recorded before it is taken."""

    def __init__(self, run: TrainingRun) -> None:
        super().__init__(run)
        self._recipe = Recipe(run.problem.training, run.problem.data.points)

    def _next(self) -> float:
        run, step = self.run, self.step
        fields = run.fields(step)
        f = run.predictions(fields, step)
        loss = run.record(step, fields, f)
        optimiser = Sgd(run.problem.training.momentum, self._recipe.decay(step))
        run.update(fields, f, self._recipe.weighting(step, f), optimiser)
        return loss
