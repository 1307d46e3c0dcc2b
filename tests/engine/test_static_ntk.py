"""The lazy limit against closed forms that share no code with the engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dmft_engine.activations import ACTIVATIONS, Activation
from dmft_engine.gaussian_kernels import gaussian_averages


def covariance() -> torch.Tensor:
    factor = np.random.default_rng(0).normal(size=(5, 8))
    return torch.from_numpy(factor @ factor.T / 8)


@pytest.mark.parametrize("name", ["linear", "erf"])
def test_quadrature_meets_the_closed_form(name: str) -> None:
    smooth = ACTIVATIONS[name]
    closed = gaussian_averages(smooth, covariance())
    quadrature = gaussian_averages(Activation(smooth.function), covariance())
    for exact, approximate in zip(closed, quadrature, strict=True):
        torch.testing.assert_close(approximate, exact, rtol=1e-9, atol=1e-9)
