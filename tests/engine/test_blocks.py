"""Blocks: each against torch.nn with the same weights, and what holds of networks made of any of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmft_engine import Problem, solve
from dmft_engine.model.composition import Composition
from dmft_engine.model.networks import AnyWeights
from dmft_engine.training.optimisers import Sgd
from dmft_engine.weights.initialisation import dense_weights, revealed_weights
from dmft_engine.weights.matrices import DenseMatrix
from tests.engine import plain_blocks
from tests.problems import request, run

Layers = list[dict[str, Any]]
WIDTH = 12
POINTS = 20
"""Of which six are trained on."""

DENSE = {"block": "dense"}
TANH = {"block": "activation", "name": "tanh"}
CONVOLUTION = {"block": "convolution", "size": 3}
READOUT = {"block": "readout"}
VECTORS, SEQUENCES, IMAGES = (5,), (4, 3), (4, 5, 2)
"""Shapes of points, few enough numbers in each that their rows are the input matrix's own coordinates."""

EACH: dict[str, tuple[tuple[int, ...], Layers]] = {
    "dense": (VECTORS, [DENSE, TANH, DENSE, TANH, READOUT]),
    "dense, scale and bias": (
        VECTORS,
        [
            DENSE | {"bias_scale": 0.5},
            TANH,
            DENSE | {"weight_scale": 1.3, "bias_scale": 0.7},
            TANH,
            READOUT | {"weight_scale": 0.8},
        ],
    ),
    "dense at positions": (SEQUENCES, [DENSE, TANH, DENSE, TANH, READOUT]),
    "convolution": (IMAGES, [CONVOLUTION, TANH, CONVOLUTION, TANH, READOUT]),
    "convolution, stride, scale and bias": (
        IMAGES,
        [
            CONVOLUTION | {"stride": 2},
            TANH,
            CONVOLUTION | {"stride": 2, "weight_scale": 1.2, "bias_scale": 0.3},
            TANH,
            READOUT,
        ],
    ),
    "convolution, valid": (
        IMAGES,
        [
            CONVOLUTION | {"size": 2, "padding": "valid"},
            TANH,
            CONVOLUTION | {"padding": "valid"},
            TANH,
            READOUT,
        ],
    ),
    "convolution, circular": (
        IMAGES,
        [
            CONVOLUTION | {"padding": "circular"},
            TANH,
            CONVOLUTION | {"padding": "circular", "stride": 2},
            TANH,
            READOUT,
        ],
    ),
    "convolution in one dimension": (
        SEQUENCES,
        [CONVOLUTION, TANH, CONVOLUTION | {"size": 2}, TANH, READOUT],
    ),
    "activation": (VECTORS, [DENSE, {"block": "activation", "name": "gelu"}, READOUT]),
    "normalise, rms": (VECTORS, [DENSE, {"block": "normalise", "kind": "rms"}, TANH, DENSE, READOUT]),
    "normalise, layer": (VECTORS, [DENSE, {"block": "normalise", "kind": "layer"}, TANH, DENSE, READOUT]),
    "normalise, rms, learned": (
        VECTORS,
        [DENSE, {"block": "normalise", "kind": "rms", "learned": True}, TANH, DENSE, READOUT],
    ),
    "normalise, layer, learned": (
        SEQUENCES,
        [DENSE, {"block": "normalise", "kind": "layer", "learned": True}, TANH, DENSE, READOUT],
    ),
    "pool": (IMAGES, [CONVOLUTION, TANH, {"block": "pool", "size": 2}, CONVOLUTION, TANH, READOUT]),
    "attention": (
        SEQUENCES,
        [
            DENSE,
            {"block": "attention", "head_size": 3},
            TANH,
            {"block": "attention", "scores": "linear"},
            TANH,
            READOUT,
        ],
    ),
    "attention, causal": (SEQUENCES, [DENSE, {"block": "attention", "causal": True}, TANH, READOUT]),
    "residual": (
        SEQUENCES,
        [
            DENSE,
            {"block": "residual", "scale": 0.7, "branch": [{"block": "attention"}]},
            {"block": "residual", "branch": [TANH, DENSE, TANH, DENSE]},
            TANH,
            READOUT,
        ],
    ),
    "recurrence": (
        SEQUENCES,
        [{"block": "recurrence", "weight_scale": 1.2}, TANH, READOUT | {"positions": "last"}],
    ),
    "recurrence on a recurrence": (
        SEQUENCES,
        [{"block": "recurrence"}, TANH, DENSE | {"bias_scale": 0.4}, {"block": "recurrence"}, TANH, READOUT],
    ),
    "readout, flatten": (SEQUENCES, [DENSE, TANH, READOUT | {"positions": "flatten"}]),
    "readout, last": (SEQUENCES, [DENSE, TANH, READOUT | {"positions": "last"}]),
}


def slow(name: str) -> Any:
    return pytest.param(name, marks=pytest.mark.slow)


def inputs(shape: tuple[int, ...], points: int, seed: int = 0) -> NDArray:
    return np.random.default_rng(seed).normal(size=(points, *shape))


def problem(shape: tuple[int, ...], layers: Layers, **sections: Any) -> Problem:
    """With test points, several outputs and, in dimensions, more rows than numbers in each."""
    x = inputs(shape, POINTS)
    y = np.random.default_rng(1).normal(size=(POINTS, 2))
    data = {"inputs": x[:6].tolist(), "targets": y[:6].tolist()}
    data |= {"test_inputs": x[6:].tolist(), "test_targets": y[6:].tolist()}
    network = {"architecture": "composed", "layers": layers, "gamma0": 0.8}
    return Problem.from_request(request(data, network=network, **sections))


def network_of(given: Problem, width: int = WIDTH) -> Composition:
    weights = dense_weights(given, width, range(1), 0, torch.float64, "cpu")
    assert isinstance(weights, Composition)
    return weights


def unit_weights(weights: Composition) -> list[Tensor]:
    """Copies of all weights, as plain_blocks has them."""
    matrices = {id(p) for m in weights.hidden if isinstance(m, DenseMatrix) for p in m.parameters()}
    scaled = ((p.value[0], id(p) in matrices) for p in weights.parameters())
    return [value * weights.samples**0.5 if hidden else value.clone() for value, hidden in scaled]


@pytest.mark.parametrize("name", EACH)
def test_blocks_are_those_of_torch_forward_backward_and_trained(name: str) -> None:
    """The same weights: outputs, NTK, and predictions after steps of momentum and decay, all to rounding."""
    shape, layers = EACH[name]
    check_against_torch(shape, layers)


def check_against_torch(shape: tuple[int, ...], layers: Layers, width: int = WIDTH) -> None:
    given = problem(shape, layers)
    ours, gamma0, rate = network_of(given, width), given.network.gamma0, 0.3
    theirs = [weight.requires_grad_(True) for weight in unit_weights(ours)]
    velocity = [torch.zeros_like(weight) for weight in theirs]
    x, y = torch.tensor(inputs(shape, POINTS)), torch.tensor(given.data.targets)
    rule = Sgd(momentum=0.5, decay=0.02)
    for step in range(4):
        with torch.no_grad():
            fields = ours.propagate(6)
        out = plain_blocks.output(layers, x, theirs)
        torch.testing.assert_close(fields.output[0], out.detach(), rtol=1e-9, atol=1e-9)
        if step == 1:
            check_ntk(ours.propagate(POINTS).ntk(torch.empty(0))[0], out, theirs, width)
        # theta <- theta + v, v <- mu v - eta gamma0^2 N dL/dtheta - decay theta, L = (1/P) sum |f - y|^2 / 2
        f = out[:6] / (gamma0 * width)
        loss = (f - y).square().sum() / 2 / 6
        gradients = torch.autograd.grad(loss, theirs, allow_unused=True, materialize_grads=True)
        with torch.no_grad():
            for weight, v, gradient in zip(theirs, velocity, gradients, strict=True):
                v.mul_(0.5).sub_(rate * gamma0**2 * width * gradient).sub_(0.02 * weight)
                weight.add_(v)
            ours.propagate(6)
            errors = (y - f.detach()).T[None]
            ours.update(fields, gamma0 * rate / 6 * errors, rule)


def check_ntk(found: Tensor, out: Tensor, weights: list[Tensor], width: int) -> None:
    """K = (1/N) sum over weights of d(gamma0 N f) / d theta twice, [C, P, C, P]."""
    rows = [
        torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True, materialize_grads=True)
        for value in out.T.flatten()
    ]
    jacobian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
    expected = jacobian @ jacobian.T / width
    torch.testing.assert_close(found.flatten(2).flatten(0, 1), expected, rtol=1e-9, atol=1e-9)


def test_a_convolution_of_size_one_at_one_position_is_a_dense_block() -> None:
    x = inputs((7,), 6)
    data = {"targets": [1.0, -1.0, 1.0, -1.0, 1.0, -1.0]}
    settings: dict[str, Any] = {"training": {"steps": 20, "learning_rate": 0.2}}
    one = {"block": "convolution", "size": 1}
    for method in (
        {"name": "dmft", "samples": 1024, "replicas": 2},
        {"name": "finite_width", "width": 30, "ensemble": 2},
    ):
        dense = run(data | {"inputs": x.tolist()}, network={"depth": 2}, method=method, **settings).arrays
        layers = [one, TANH, one, TANH, READOUT]
        images = data | {"inputs": x[:, None, None].tolist()}
        network = {"architecture": "composed", "layers": layers}
        found = run(images, network=network, method=method, **settings).arrays
        for name in ("loss", "predictions", "ntk", "phi_1", "g_2"):
            np.testing.assert_allclose(found[name], dense[name], atol=2e-4 * np.abs(dense[name]).max())


def test_a_shift_of_every_image_around_the_edges_changes_nothing() -> None:
    """Circular padding and a readout of the mean."""
    around = CONVOLUTION | {"padding": "circular"}
    layers = [around, TANH, around, TANH, READOUT]
    x = inputs((3, 4, 1), 4)
    shifted = np.roll(x, (1, 2), axis=(1, 2))
    results = [
        run(
            {"inputs": images.tolist(), "targets": [1.0, -1.0, 1.0, -1.0]},
            network={"architecture": "composed", "layers": layers},
            training={"steps": 8, "learning_rate": 1.0},
            method={"name": "dmft", "samples": 2048, "replicas": 2, "tolerance": 0.05, "dtype": "float64"},
        ).arrays
        for images in (x, shifted)
    ]
    for name in ("loss", "predictions", "ntk", "phi_1", "phi_2", "g_1", "g_2"):
        one, other = (result[name] for result in results)
        errors = [result.get(f"{name}_standard_error") for result in results]
        if name in ("loss", "predictions", "ntk"):
            joint = np.hypot(errors[0], errors[1])
            # Fields of shifted images are other combinations of the same: noise alone may differ.
            assert (np.abs(one - other) <= 5 * joint + 1e-9).all(), name


def test_causal_attention_does_not_see_the_future() -> None:
    """A token that changes leaves the output at the positions before it, with the same weights."""
    x = torch.tensor(inputs(SEQUENCES, POINTS))
    layers = [DENSE, {"block": "residual", "branch": [{"block": "attention", "causal": True}]}, TANH]
    changed = x.clone()
    changed[:, 2] += 1.0
    outputs = []
    for tokens in (x, changed):
        given = problem(SEQUENCES, [*layers, READOUT])
        assert given.data.inputs is not None
        given.data.inputs[:] = tokens.numpy()
        weights = network_of(given)
        with torch.no_grad():
            weights.propagate(6)
        outputs.append(weights.layers[-1].above.x.unflatten(1, (POINTS, -1)))
    before, after = (output[:, :, :2] for output in outputs)
    torch.testing.assert_close(before, after, rtol=0, atol=0)
    assert (outputs[0][:, :, 2:] - outputs[1][:, :, 2:]).abs().amin((0, 1, 3)).max() > 0


RESTORED = ["normalise, layer, learned", *(slow(n) for n in ("convolution", "residual", "recurrence"))]


@pytest.mark.parametrize("name", RESTORED)
@pytest.mark.parametrize("limit", [True, False])
def test_restored_networks_go_on_bit_for_bit(name: str, limit: bool) -> None:
    shape, layers = EACH[name]
    given = problem(shape, layers)
    rule, y = Sgd(momentum=0.5, decay=0.01), torch.tensor(given.data.targets).float()

    def made() -> AnyWeights:
        if limit:
            return revealed_weights(given, 2, 2048, 0.1, 0, torch.float32, "cpu", True)
        return dense_weights(given, 20, range(2), 0, torch.float32, "cpu")

    def advance(weights: AnyWeights, steps: int) -> list[Tensor]:
        assert isinstance(weights, Composition)
        outputs = []
        for _ in range(steps):
            with torch.no_grad():
                fields = weights.propagate(6)
                outputs.append(fields.output)
                errors = y - fields.output[:, :6] / weights.samples
                weights.update(fields, 0.1 * errors.mT, rule)
        return outputs

    whole = advance(made(), 4)
    for stop in (1, 2):
        first, second = made(), made()
        advance(first, stop)
        second.restore(first.state())
        for before, after in zip(whole[stop:], advance(second, 4 - stop), strict=True):
            assert torch.equal(before, after)


@pytest.mark.parametrize("name", ["convolution", "attention", "recurrence", "residual"])
def test_fields_are_those_of_torch(name: str) -> None:
    """h and phi of every layer, position by position, and what their products make: the kernels."""
    shape, layers = EACH[name]
    times = {"field_times": [0], "field_neurons": 40, "kernel_times": [0], "kernels": ["phi", "g"]}
    method = {"name": "finite_width", "width": 12, "ensemble": 2, "dtype": "float64"}
    given = problem(shape, layers, method=method, outputs=times, training={"steps": 1})
    arrays = solve(given).arrays
    for layer in range(1, given.network.recorded + 1):
        for kind in ("phi", "g"):
            fields = arrays[f"fields_{kind}_{layer}"][0].astype(float)  # [P (, C), A, R N]
            points, positions = fields.shape[0], fields.shape[-2]
            if kind == "g":
                fields = fields.swapaxes(0, 1)
                rows = fields.reshape(2 * points, positions * 24)
                expected = (rows @ rows.T).reshape(2, points, 2, points).transpose(1, 0, 3, 2)
            else:
                rows = fields.reshape(points, positions * 24)
                expected = rows @ rows.T
            found = np.take(arrays[f"{kind}_{layer}"][0], 0, axis=-3 if kind == "g" else -2)
            np.testing.assert_allclose(found, expected / 24 / positions, rtol=1e-4, atol=1e-5)
        assert (
            arrays[f"fields_z_{layer}"].shape
            == arrays[f"fields_g_{layer}"].shape[:3] + arrays[f"fields_phi_{layer}"].shape[2:]
        )


@pytest.mark.parametrize("method", ["dmft", "finite_width"])
def test_kernels_between_positions_have_the_mean_on_their_diagonal(method: str) -> None:
    options = {"dmft": {"samples": 2048, "replicas": 2, "tolerance": 0.1}, "finite_width": {"ensemble": 2}}
    layers = [CONVOLUTION, TANH, CONVOLUTION | {"stride": 2}, TANH, READOUT]
    found = []
    for kept in ("mean", "all"):
        given = problem(
            IMAGES,
            layers,
            method={"name": method} | options[method],
            training={"steps": 3, "learning_rate": 0.3},
            outputs={"kernel_times": [0, -1], "kernel_positions": kept},
        )
        result = solve(given)
        assert result.error is None
        found.append((result.arrays, result.document().summary))
    (mean, summary), (each, summary_of_each) = found
    for name, before, positions in (("phi_1", 1, 20), ("phi_2", 1, 6), ("g_1", 2, 20), ("g_2", 2, 6)):
        shape = (2, 6, *[2] * (before - 1))
        assert each[name].shape == (*shape, positions) * 2
        left, right = [0, 1, *range(2, 1 + before), 9], [10, 11, *range(12, 11 + before), 9]
        diagonal = np.einsum(each[name], [*left, *right])
        np.testing.assert_allclose(diagonal / positions, mean[name], rtol=1e-4, atol=1e-5)
    assert summary.final_loss == summary_of_each.final_loss
    assert summary_of_each.effective_dimension is not None


def test_kernels_between_positions_are_refused_where_there_are_none() -> None:
    x = {"inputs": inputs((3,), 4).tolist(), "targets": [1.0, -1.0, 1.0, -1.0]}
    with pytest.raises(ValueError, match="architecture mlp has none"):
        request(x, outputs={"kernel_positions": "all"})
    network = {"architecture": "composed", "layers": [DENSE, TANH, READOUT]}
    with pytest.raises(ValueError, match="static_ntk keeps means over positions"):
        request(x, network=network, method={"name": "static_ntk"}, outputs={"kernel_positions": "all"})
