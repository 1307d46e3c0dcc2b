"""The lazy limit against closed forms and exact solutions that share no code with the engine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dmft_engine.model.activations import ACTIVATIONS
from dmft_engine.theory.point_pairs import averages_of
from tests.accuracy import Accuracy
from tests.problems import run, sphere

Map = Callable[[NDArray], tuple[NDArray, NDArray]]


def relu_map(k: NDArray) -> tuple[NDArray, NDArray]:
    """Arc-cosine kernels of degree 1 and 0 (Cho and Saul 2009)."""
    norm = np.sqrt(np.outer(k.diagonal(), k.diagonal()))
    angle = np.arccos(np.clip(k / norm, -1, 1))
    value = norm * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
    return value, (np.pi - angle) / (2 * np.pi)


def erf_map(k: NDArray) -> tuple[NDArray, NDArray]:
    """Williams 1997, for erf(x) itself."""
    scale = np.sqrt(np.outer(1 + 2 * k.diagonal(), 1 + 2 * k.diagonal()))
    value = 2 / np.pi * np.arcsin(2 * k / scale)
    return value, 4 / np.pi / np.sqrt(scale**2 - 4 * k**2)


def linear_map(k: NDArray) -> tuple[NDArray, NDArray]:
    return k, np.ones_like(k)


CLOSED_FORMS: dict[str, Map] = {"relu": relu_map, "erf": erf_map, "linear": linear_map}


def covariance() -> torch.Tensor:
    factor = np.random.default_rng(0).normal(size=(5, 8))
    return torch.from_numpy(factor @ factor.T / 8)


@pytest.mark.parametrize("name", CLOSED_FORMS)
@pytest.mark.parametrize("depth", [1, 3])
def test_kernels_meet_the_closed_forms(name: str, depth: int, accuracy: Accuracy) -> None:
    data = sphere(6, 9)
    result = run(
        data,
        network={"depth": depth, "activation": name},
        training={"steps": 2},
        method={"name": "static_ntk"},
    )
    inputs = np.array(data["inputs"])
    phi = [inputs @ inputs.T / 9]
    slopes = []
    for _ in range(depth):
        value, slope = CLOSED_FORMS[name](phi[-1])
        phi.append(value)
        slopes.append(slope)
    g = [np.ones_like(phi[0])]
    for slope in reversed(slopes):
        g.insert(0, g[0] * slope)
    ntk = sum(a * b for a, b in zip(phi, g, strict=True))
    # arccos and arcsin lose half the digits where points coincide: the diagonal.
    close = {"rtol": 1e-7, "atol": 1e-9}
    for layer in range(1, depth + 1):
        np.testing.assert_allclose(result.arrays[f"phi_{layer}"][1, :, 1], phi[layer], **close)
        np.testing.assert_allclose(result.arrays[f"g_{layer}"][0, :, 1], g[layer - 1], **close)
    accuracy(
        f"`static_ntk`, {name}, L = {depth}: NTK, relative",
        "arc-cosine and arc-sine formulas, or none needed",
        result.arrays["ntk"][0] / ntk - 1,
    )
    np.testing.assert_allclose(result.arrays["ntk"][0], ntk, **close)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_averages_meet_monte_carlo(name: str, accuracy: Accuracy) -> None:
    """Every activation against 4 million draws, within five of their standard errors."""
    k = covariance()[:2, :2]
    draws = torch.randn(4_000_000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u = (draws @ torch.linalg.cholesky(k).mT).requires_grad_(True)
    phi = ACTIVATIONS[name].function(u)
    (slope,) = torch.autograd.grad(phi.sum(), u)
    found = averages_of(ACTIVATIONS[name].averages, k[:1, 0], k[1:, 1], k[:1, 1])
    for expected, sampled in zip(found, (phi.detach(), slope), strict=True):
        products = sampled[:, 0] * sampled[:, 1]
        error = float(products.std() / len(products) ** 0.5)
        difference = float(products.mean() - expected)
        accuracy(f"`static_ntk`, {name}: Gaussian averages", "4 million Monte Carlo draws", difference, error)
        assert abs(difference) <= 5 * error


def test_training_is_gradient_descent_on_the_kernel(accuracy: Accuracy) -> None:
    """f(t) = (1 - (1 - eta K / P)^t) y, by eigenvectors; test points by their cross kernel."""
    data = sphere(8, 10)
    inputs, targets = np.array(data["inputs"]), np.array(data["targets"])
    split = {
        "inputs": inputs[:6].tolist(),
        "targets": targets[:6].tolist(),
        "test_inputs": inputs[6:].tolist(),
        "test_targets": targets[6:].tolist(),
    }
    result = run(
        split,
        network={"depth": 2, "activation": "linear"},
        training={"steps": 40, "learning_rate": 0.3},
        method={"name": "static_ntk"},
    )
    kernel = 3 * inputs @ inputs.T / 10
    values, vectors = np.linalg.eigh(kernel[:6, :6])
    for t in (0, 1, 17, 39):
        remaining = (1 - 0.3 * values / 6) ** t
        f = vectors @ ((1 - remaining) * (vectors.T @ targets[:6]))
        accuracy(
            "`static_ntk`: predictions", "eigenvectors of the kernel", result.arrays["predictions"][t] - f
        )
        np.testing.assert_allclose(result.arrays["predictions"][t], f, atol=1e-12)
        weights = vectors @ ((1 - remaining) / values * (vectors.T @ targets[:6]))
        test = kernel[6:, :6] @ weights
        np.testing.assert_allclose(result.arrays["test_predictions"][t], test, atol=1e-12)
        np.testing.assert_allclose(result.arrays["loss"][t], ((f - targets[:6]) ** 2).mean(), atol=1e-12)


def test_several_outputs_are_independent_problems() -> None:
    data = sphere(5, 7)
    targets = np.random.default_rng(3).normal(size=(5, 3))
    settings = {"method": {"name": "static_ntk"}, "training": {"steps": 20}}
    together = run(data | {"targets": targets.tolist()}, **settings)
    for column in range(3):
        alone = run(data | {"targets": targets[:, column].tolist()}, **settings)
        np.testing.assert_allclose(
            together.arrays["predictions"][..., column], alone.arrays["predictions"], atol=1e-13
        )


@pytest.mark.parametrize("architecture", ["mlp", "residual"])
def test_kernels_by_layer_are_those_of_shallower_networks(architecture: str) -> None:
    """By the recursion over layers here, by the sum over weights there; with biases and scales."""
    data = sphere(5, 7)
    scales = [1.2, 0.8, 1.1, 0.9]

    def network(depth: int, **changes: object) -> dict[str, object]:
        shape = {"architecture": architecture, "depth": depth, "activation": "gelu"}
        return shape | {"weight_scales": scales[: depth + 1]} | changes

    settings = {"training": {"steps": 1}, "method": {"name": "static_ntk"}}
    deep = run(data, network=network(3, bias_scale=0.3), **settings).arrays
    np.testing.assert_allclose(deep["ntk_4"], deep["ntk"][0], rtol=1e-12)
    assert deep["nngp_3"].shape == (5, 5)
    if architecture == "mlp":
        for depth in (1, 2):
            # Its readout has no bias, which adds sigma_b^2 to both kernels of a hidden layer.
            shallow = run(data, network=network(depth, bias_scale=0.3), **settings).arrays
            for name in ("nngp", "ntk"):
                expected = shallow[f"{name}_{depth + 1}"] + 0.3**2
                np.testing.assert_allclose(deep[f"{name}_{depth + 1}"], expected, rtol=1e-12)
            phi = shallow[f"phi_{depth}"][0, :, 0]
            np.testing.assert_allclose(shallow[f"nngp_{depth + 1}"], scales[depth] ** 2 * phi, rtol=1e-12)
