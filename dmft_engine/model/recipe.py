"""The training recipe as solvers see it: how much each point's error counts at each step."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmft_schema import Training

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda _: 1.0,
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
}
"""Fraction of training done -> fraction of the learning rate. One entry adds one."""


class Recipe:
    """Rates, batches and decay of every step of a training run."""

    def __init__(self, training: Training, points: int) -> None:
        self._training = training
        self._points = points
        self._epoch = -1
        self._order = np.arange(points)
        schedule = SCHEDULES[training.schedule]
        self.rates: NDArray = training.learning_rate * np.array(
            [schedule(step / training.steps) for step in range(training.steps)]
        )

    @property
    def times(self) -> NDArray:
        """[T] learning time: the rates of the steps before, summed."""
        return np.concatenate([[0.0], np.cumsum(self.rates)[:-1]])

    def decay(self, step: int) -> float:
        """eta lambda."""
        return float(self.rates[step]) * self._training.weight_decay

    def weights(self, step: int) -> NDArray:
        """[P] eta / B for the points of the step's batch, 0 for the others."""
        rate = float(self.rates[step])
        size = self._training.batch_size
        if size is None or size >= self._points:
            return np.full(self._points, rate / self._points)
        weights = np.zeros(self._points)
        weights[self._batch(step, size)] = rate / size
        return weights

    def weighting(self, step: int, like: Tensor) -> Tensor:
        """`weights` as a tensor of the dtype and on the device of another."""
        return torch.from_numpy(self.weights(step)).to(like)

    def _batch(self, step: int, size: int) -> NDArray:
        """Epoch by epoch through a shuffled order, as many whole batches as there are."""
        batches = self._points // size
        epoch, index = divmod(step, batches)
        if epoch != self._epoch:
            self._order = np.random.default_rng([self._training.batch_seed, epoch]).permutation(self._points)
            self._epoch = epoch
        return self._order[index * size : (index + 1) * size]
