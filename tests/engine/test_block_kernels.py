"""The lazy limit of networks of blocks, against neural-tangents (numbers kept) and wide networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dmft_engine.theory import gaussian_kernels
from dmft_engine.theory.gaussian_kernels import Inputs, initial_kernels, kernels_with_error
from dmft_engine.theory.point_pairs import PointPairs
from dmft_engine.theory.sampled_attention import Heads
from dmft_schema import ComposedNetwork
from dmft_schema.blocks import AttentionBlock, Block
from dmft_schema.closing import NotClosed, check_closed
from tests.accuracy import Accuracy
from tests.engine import plain_networks as plain

KEPT = json.loads((Path(__file__).parents[1] / "data" / "neural_tangents.json").read_text())

DENSE = {"block": "dense"}
CONVOLUTION = {"block": "convolution"}
TANH = {"block": "activation", "name": "tanh"}
RELU = {"block": "activation", "name": "relu"}
SOFTPLUS = {"block": "activation", "name": "softplus"}
GELU = {"block": "activation", "name": "gelu"}
RMS = {"block": "normalise", "kind": "rms"}
LAYER = {"block": "normalise", "kind": "layer"}
ATTENTION = {"block": "attention"}
MEAN = {"block": "readout", "positions": "mean"}
FLATTEN = {"block": "readout", "positions": "flatten"}
LAST = {"block": "readout", "positions": "last"}


def branch(*blocks: dict[str, Any], scale: float = 1.0) -> dict[str, Any]:
    return {"block": "residual", "branch": list(blocks), "scale": scale}


def composed(*blocks: dict[str, Any]) -> tuple[Block, ...]:
    return ComposedNetwork(architecture="composed", layers=list(blocks)).blocks


def points(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def given(x: Tensor) -> Inputs:
    return Inputs.of_vectors(x) if x.ndim > 2 else Inputs(x @ x.mT / x.shape[1])


def off(found: Tensor, expected: Any) -> float:
    """The largest error of an entry over sqrt(K_aa K_bb)."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    root = expected.diagonal().sqrt()
    return float(((found - expected).abs() / root[:, None] / root).max())


@pytest.mark.parametrize("case", KEPT["cases"], ids=range(len(KEPT["cases"])))
def test_random_compositions_meet_neural_tangents(case: dict[str, Any], accuracy: Accuracy) -> None:
    """Convolutions, pools, residuals, normalisations, readouts in one and two dimensions.

    neural-tangents takes ReLU's derivative from arccos of a rounded correlation: 1e-8 where points coincide.
    """
    kernels, error = kernels_with_error(
        composed(*case["blocks"]), Inputs.of_vectors(torch.tensor(case["inputs"], dtype=torch.float64))
    )
    assert error < 1e-13
    kinked = any(block["name"] == "relu" for block in _all_blocks(case["blocks"]) if "name" in block)
    for name, found in (("nngp", kernels.nngp[-1]), ("ntk", kernels.ntk)):
        worst = off(found, case[name])
        accuracy(
            f"`static_ntk`, random convolutional compositions: {name.upper()}", "neural-tangents 0.6.5", worst
        )
        assert worst < (1e-8 if kinked else 1e-10)


def _all_blocks(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [inner for block in blocks for inner in (block, *_all_blocks(block.get("branch", [])))]


WIDE = {
    "recurrent": (
        (3, 4, 3),
        [DENSE, {"block": "recurrence", "weight_scale": 1.4}, TANH, LAST],
    ),
    "recurrent_mean": ((3, 4, 3), [DENSE, {"block": "recurrence", "activation": "softplus"}, RELU, MEAN]),
    "rms_of_fields": (
        (3, 4),
        [
            DENSE | {"weight_scale": 2.0, "bias_scale": 0.5},
            *(RMS, TANH, DENSE | {"weight_scale": 1.5}, RMS, TANH, MEAN),
        ],
    ),
    "layer_norm_of_activations": (
        (3, 4),
        [DENSE, RELU, LAYER, DENSE | {"weight_scale": 1.5}, GELU, LAYER, DENSE, TANH, MEAN],
    ),
    "branch_of_activations": (
        (3, 4, 3),
        [
            DENSE,
            RELU,
            branch(DENSE, SOFTPLUS, scale=0.7),
            RMS,
            {"block": "pool", "size": 4},
            DENSE,
            TANH,
            MEAN,
        ],
    ),
    "learned_norms": (
        (3, 4),
        [DENSE, TANH, LAYER | {"learned": True}, DENSE, RMS | {"learned": True}, DENSE, RELU, MEAN],
    ),
    "attended": ((3, 4, 3), [DENSE, branch(RMS, ATTENTION), TANH, MEAN]),
    "causal": (
        (3, 4, 3),
        [DENSE, ATTENTION | {"head_size": 1, "causal": True}, RELU, LAST],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WIDE)
def test_wide_networks_in_plain_torch(name: str, accuracy: Accuracy) -> None:
    """NTKs of networks of two widths by autograd, extrapolated: jointly within their standard errors.

    What the norms' own derivatives would add - a factor of 1 - 1/2 or so, were <x dx> not 0 - is excluded.
    """
    shape, blocks = WIDE[name]
    x = points(*shape)
    kernels, error = kernels_with_error(composed(*blocks), given(x))
    assert error < (0.1 if name in ("attended", "causal") else 1e-13)
    mean, standard_error = plain.sampled_kernels(getattr(plain, name), x.numpy(), widths=(96, 192), draws=100)
    sampling = error * np.sqrt(np.outer(kernels.ntk.diagonal(), kernels.ntk.diagonal())) / 3
    joint = np.hypot(standard_error, sampling)
    difference = kernels.ntk.numpy() - mean
    accuracy(f"`static_ntk`, {name}: NTK", "wide networks in plain torch", difference, joint)
    # Four standard errors of six numbers; and the error bars are small enough to mean something.
    assert (np.abs(difference) < 4 * joint).all(), (difference / joint).round(1)
    assert joint.max() < 0.08 * float(kernels.ntk.max())


def test_dense_layers_with_a_flatten_readout_are_a_network_at_each_position() -> None:
    x = points(4, 6, 2)
    blocks = composed(DENSE, TANH, DENSE, branch(DENSE, RELU, DENSE), GELU, DENSE, TANH, FLATTEN)
    kernels = initial_kernels(blocks, given(x))
    alone = [initial_kernels(blocks, given(x[:, a : a + 1])) for a in range(6)]
    for kind, of_one in zip(kernels.by_kind, zip(*(k.by_kind for k in alone), strict=True), strict=True):
        for layer, found in enumerate(kind):
            expected = torch.stack([one[layer] for one in of_one]).mean(0)
            # G of each of A positions is 1 / A of that of one.
            factor = 6 if kind is kernels.g else 1
            torch.testing.assert_close(factor * found, expected, rtol=1e-12, atol=1e-14)


def test_a_convolution_of_size_1_at_one_position_is_dense() -> None:
    x = points(5, 3)
    one = CONVOLUTION | {"size": 1, "weight_scale": 1.3, "bias_scale": 0.2}
    as_dense = DENSE | {"weight_scale": 1.3, "bias_scale": 0.2}
    for readout in (MEAN, FLATTEN, LAST):
        here = initial_kernels(composed(one, TANH, one, RELU, readout), given(x[:, None]))
        there = initial_kernels(composed(as_dense, TANH, as_dense, RELU, MEAN), given(x))
        for found, expected in zip(here.by_kind, there.by_kind, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)


def test_cyclic_shifts_change_nothing_under_circular_padding() -> None:
    x = points(3, 4, 5, 2)
    circular = CONVOLUTION | {"padding": "circular"}
    blocks = composed(circular, RELU, circular, TANH, MEAN)
    shifted = torch.stack([image.roll((i + 1, 2 * i), (0, 1)) for i, image in enumerate(x)])
    expected = initial_kernels(blocks, given(x)).ntk
    torch.testing.assert_close(initial_kernels(blocks, given(shifted)).ntk, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("readout", [MEAN, FLATTEN])
def test_portions_of_pairs_change_nothing(readout: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    x = points(7, 6, 2)
    blocks = composed(CONVOLUTION, RELU, LAYER, branch(DENSE, TANH, DENSE, scale=0.3), DENSE, GELU, readout)
    whole = initial_kernels(blocks, given(x))
    in_portions = PointPairs.portions
    monkeypatch.setattr(
        gaussian_kernels.PointPairs, "portions", lambda count, most, device: in_portions(count, 3, device)
    )
    for found, expected in zip(initial_kernels(blocks, given(x)).by_kind, whole.by_kind, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-15)


def test_recurrences_of_one_time_and_without_weights_are_dense() -> None:
    x = points(4, 5, 3)
    nearly_none = {"block": "recurrence", "weight_scale": 1e-9}
    for readout in (MEAN, FLATTEN, LAST):
        here = initial_kernels(composed(DENSE, nearly_none, TANH, readout), given(x)).ntk
        assert off(here, initial_kernels(composed(DENSE, TANH, readout), given(x)).ntk) < 1e-13
    here = initial_kernels(composed(nearly_none | {"weight_scale": 2.0}, TANH, LAST), given(x[:, :1])).ntk
    assert off(here, initial_kernels(composed(DENSE, TANH, MEAN), given(x[:, 0])).ntk) < 1e-13


@pytest.mark.parametrize("causal", [True, False])
def test_causal_attention_does_not_see_the_future(causal: bool) -> None:
    """With another last token, kernels between those before it stay what they are, but for sampling."""
    x = points(3, 4, 2)
    found = []
    for tokens in (x, torch.cat([x[:, :3], 3 * points(3, 1, 2, seed=1)], 1)):
        rows = tokens.flatten(0, 1)
        covariance = rows @ rows.mT / 2
        kernel, _ = Heads.on(AttentionBlock(causal=causal), covariance, 4, (0,)).forward(covariance)
        found.append(kernel.unflatten(1, (3, 4)).unflatten(0, (3, 4))[:, :3, :, :3].reshape(9, 9))
    assert (off(found[1], found[0]) < 0.05) == causal


@pytest.mark.parametrize("scores", ["sqrt", "linear"])
def test_gradients_of_heads_are_the_adjoint_of_their_tangents(scores: str) -> None:
    """<Gamma, M Theta> = <M* Gamma, Theta> for any two kernels, each side by sampling."""
    x, t, g = (points(6, 4, seed=seed) for seed in range(3))
    sides: list[list[float]] = [[], []]
    for seed in range(6):
        block = AttentionBlock(head_size=3, scores=scores)
        heads = Heads.on(block, x @ x.mT / 4, 3, (seed,))
        sides[0].append(float((heads.forward(t @ t.mT)[1] * (g @ g.mT)).sum()))
        sides[1].append(float((heads.gradient(g @ g.mT) * (t @ t.mT)).sum()))
    means, errors = np.mean(sides, 1), np.std(sides, 1) / 5**0.5
    assert abs(means[0] - means[1]) < 4 * np.hypot(*errors)
    assert np.hypot(*errors) < 0.03 * means[0]


@pytest.mark.parametrize(
    ("blocks", "place"),
    [
        ([DENSE, TANH, TANH, MEAN], (2,)),
        ([DENSE, TANH, LAYER, RELU, MEAN], (3,)),
        ([CONVOLUTION, TANH, {"block": "pool"}, RELU, MEAN], (3,)),
        ([DENSE, LAYER | {"learned": True}, TANH, MEAN], (2,)),
        ([DENSE, branch(TANH), MEAN], (1,)),
        ([DENSE, branch(RMS), MEAN], (1,)),
        ([DENSE, branch(branch(DENSE)), MEAN], (1,)),
        ([DENSE, branch(DENSE, TANH), TANH, MEAN], (2,)),
        ([DENSE, branch(TANH, DENSE, TANH, TANH, DENSE), MEAN], (1, "branch", 3)),
        ([DENSE, RELU, {"block": "recurrence"}, LAST], (2,)),
    ],
)
def test_what_does_not_close_is_refused_at_its_place(
    blocks: list[dict[str, Any]], place: tuple[str | int, ...]
) -> None:
    with pytest.raises(NotClosed, match="dmft with a small gamma0") as refused:
        check_closed(composed(*blocks))
    assert refused.value.place == place


def test_linear_activations_keep_fields_gaussian() -> None:
    linear = {"block": "activation", "name": "linear"}
    x = points(3, 2)
    here = initial_kernels(composed(DENSE, linear, linear, TANH, linear, MEAN), given(x)).ntk
    assert off(here, initial_kernels(composed(DENSE, TANH, MEAN), given(x)).ntk) == 0
