"""Networks and their blocks: what expands to what, what shapes they make, what is refused and where."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from dmft_schema import InputData, SolveRequest
from dmft_schema.blocks import BLOCKS, Block, ConvolutionBlock, PoolBlock, ReadoutBlock
from dmft_schema.network import (
    BaseNetwork,
    ComposedNetwork,
    ConvolutionalNetwork,
    MlpNetwork,
    RecurrentNetwork,
    ResidualNetwork,
    TransformerNetwork,
)
from dmft_schema.refusal import problem_of
from dmft_schema.shapes import Shape, ShapeError

DENSE: dict[str, Any] = {"block": "dense"}
READOUT: dict[str, Any] = {"block": "readout"}
IMAGES, SEQUENCE, VECTORS = Shape((8, 8), 1), Shape((5,), 3), Shape((), 4)
ARCHITECTURES = [MlpNetwork, ResidualNetwork, ConvolutionalNetwork, RecurrentNetwork, TransformerNetwork]


def composed(*layers: Any) -> ComposedNetwork:
    return ComposedNetwork.model_validate({"architecture": "composed", "layers": list(layers)})


def names(network: BaseNetwork) -> list[str]:
    return [block.block for block in network.all_blocks]


def test_an_mlp_is_dense_and_activation_in_turn() -> None:
    network = MlpNetwork(depth=2, activation="erf", weight_scales=[1.0, 2.0, 3.0], bias_scale=0.5)
    assert (
        network.blocks
        == composed(
            {"block": "dense", "weight_scale": 1.0, "bias_scale": 0.5},
            {"block": "activation", "name": "erf"},
            {"block": "dense", "weight_scale": 2.0, "bias_scale": 0.5},
            {"block": "activation", "name": "erf"},
            {"block": "readout", "weight_scale": 3.0},
        ).blocks
    )


def test_a_residual_network_has_branches_that_are_scaled_by_its_depth() -> None:
    network = ResidualNetwork(depth=4, branch_scale=3.0)
    branch = {"block": "residual", "branch": [{"block": "activation"}, DENSE | {"weight_scale": 1.5}]}
    assert network.blocks == composed(DENSE, branch, branch, branch, {"block": "activation"}, READOUT).blocks


def test_a_convolutional_network_convolves_and_pools_in_turn() -> None:
    network = ConvolutionalNetwork(depth=2, size=5, pool=2, positions="flatten")
    shapes = network.check_shape(Shape((8, 8), 3))
    assert [s.positions for s in shapes] == [(8, 8), (8, 8), (8, 8), (4, 4), (4, 4), (4, 4), (2, 2), ()]
    assert names(network) == ["convolution", "activation", "pool"] * 2 + ["readout"]


def test_data_come_to_a_first_recurrence_through_a_dense_block() -> None:
    first = composed({"block": "recurrence"}, {"block": "activation"}, READOUT)
    assert names(first) == ["dense", "recurrence", "activation", "readout"]
    assert first.blocks == composed(DENSE, *first.layers).blocks
    assert first.blocks == RecurrentNetwork(positions="mean").blocks
    assert len(first.check_shape(SEQUENCE)) == len(first.blocks) + 1


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_every_architecture_is_some_composition(model: type[BaseNetwork]) -> None:
    network = model()
    again = composed(*(block.model_dump() for block in network.blocks))
    assert again.blocks == network.blocks
    shape = VECTORS if model in (MlpNetwork, ResidualNetwork) else SEQUENCE
    assert again.check_shape(shape) == network.check_shape(shape)
    assert network.recorded == again.recorded >= 1


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 12),
    size=st.integers(1, 6),
    stride=st.integers(1, 4),
    padding=st.sampled_from(["same", "valid", "circular"]),
)
def test_a_convolution_makes_as_many_positions_as_torch(n: int, size: int, stride: int, padding: str) -> None:
    block = ConvolutionBlock(size=size, stride=stride, padding=padding)  # type: ignore[arg-type]
    before = Shape((n,), 1)
    if padding != "same" and size > n:
        with pytest.raises(ShapeError, match=rf"size {size}.*\[{n}, 1\]"):
            block.shape_after(before)
        return
    around = (0, 0) if padding == "valid" else ((size - 1) // 2, size // 2)
    data = nn.functional.pad(
        torch.zeros(1, 1, n), around, mode="circular" if padding == "circular" else "constant"
    )
    made = nn.Conv1d(1, 1, size, stride)(data)
    assert block.shape_after(before).positions == tuple(made.shape[2:])
    assert block.shape_after(Shape((n, n), 1)).positions == 2 * tuple(made.shape[2:])


@pytest.mark.parametrize(("n", "size"), [(5, 2), (6, 3), (4, 1), (4, 4)])
def test_a_pool_makes_as_many_positions_as_torch(n: int, size: int) -> None:
    made = nn.AvgPool2d(size)(torch.zeros(1, 1, n, n))
    assert PoolBlock(size=size).shape_after(Shape((n, n))).positions == tuple(made.shape[2:])


CONVOLUTION: dict[str, Any] = {"block": "convolution"}
DEEP = DENSE
for _ in range(12):
    DEEP = {"block": "residual", "branch": [DEEP]}

UNREADABLE: list[tuple[list[Any], str, str]] = [
    ([CONVOLUTION | {"size": 0}, READOUT], "layers.0.size", "greater than or equal to 1"),
    ([DENSE, {"block": "residual", "branch": [CONVOLUTION | {"stride": "2"}]}, READOUT],
     "layers.1.branch.0.stride", "integer"),
    ([DENSE, {"block": "residual", "branch": []}, READOUT], "layers.1.branch", "at least 1"),
    ([DENSE, {"block": "residual", "branch": [READOUT]}, READOUT], "layers.1.branch.0", "last block"),
    ([DENSE, {"block": "dens"}, READOUT], "layers.1", "dense"),
    ([DENSE, {"name": "tanh"}, READOUT], "layers.1", "got None"),
    ([DENSE, "dense", READOUT], "layers.1", "object"),
    ([DENSE, {"block": "activation", "name": "selu"}, READOUT], "layers.1.name", "tanh"),
    ([DENSE, {"block": "activation", "size": 3}, READOUT], "layers.1.size", "xtra"),
    ([DENSE, {"block": "normalise", "learned": "yes"}, READOUT], "layers.1.learned", "boolean"),
    ([DENSE, {"block": "attention", "head_size": 257}, READOUT], "layers.1.head_size", "256"),
    ([READOUT, READOUT], "layers.0", "last block"),
    ([DENSE], "layers.0", "readout"),
    ([READOUT], "", "before the readout"),
    ([], "layers", "at least 1"),
    ([DENSE] * 200 + [READOUT], "layers", "200"),
    ([{"block": "residual", "branch": [DENSE] * 150}] * 2 + [READOUT], "", "303 blocks"),
    ([DENSE, DEEP, READOUT], "layers.1" + ".branch.0" * 8, "limit: 8"),
]  # fmt: skip


@pytest.mark.parametrize(("layers", "place", "words"), UNREADABLE)
def test_a_block_that_is_none_is_named_by_its_place(layers: list[Any], place: str, words: str) -> None:
    with pytest.raises(ValidationError) as error:
        composed(*layers)
    found = problem_of(error.value)
    assert found.errors is not None
    assert [".".join(map(str, e.loc)) for e in found.errors] == [place]
    assert words in found.errors[0].msg


ATTENTION: dict[str, Any] = {"block": "attention"}
BRANCH: dict[str, Any] = {"block": "residual", "branch": [CONVOLUTION | {"stride": 2}]}
UNTAKEN: list[tuple[BaseNetwork, Shape, str, str]] = [
    (composed(CONVOLUTION, READOUT), VECTORS, "layers.0", r"\[times, D\] or \[H, W, C\]; it got \[4\]"),
    (composed(DENSE, CONVOLUTION | {"size": 6, "padding": "valid"}, READOUT), SEQUENCE, "layers.1",
     r"size 6 .* \[5, N\]"),
    (composed(DENSE, BRANCH, READOUT), SEQUENCE, "layers.1", r"\[3, N\] of \[5, N\]"),
    (composed(DENSE, {"block": "pool", "size": 9}, READOUT), IMAGES, "layers.1", r"size 9 .* \[8, 8, N\]"),
    (composed(DENSE, {"block": "recurrence"}, READOUT), IMAGES, "layers.1",
     r"\[times, D\]; it got \[8, 8, N\]"),
    (composed(DENSE, ATTENTION, READOUT), VECTORS, "layers.1", r"it got \[N\]"),
    (composed(DENSE, ATTENTION | {"causal": True}, READOUT), IMAGES, "layers.1", r"it got \[8, 8, N\]"),
    (composed({"block": "activation"}, READOUT), SEQUENCE, "layers.0", r"\[\.\., N\].*\[5, 3\]"),
    (composed(DENSE, CONVOLUTION | {"size": 17}, READOUT), IMAGES, "layers.1", r"289 matrices.*256"),
    (composed(DENSE, READOUT | {"positions": "last"}), IMAGES, "layers.1", r"it got \[8, 8, N\]"),
    (MlpNetwork(), IMAGES, "", r"\[D\].*\[8, 8, 1\].*flatten them to \[64\]"),
    (ConvolutionalNetwork(), VECTORS, "", r"convolutional .* shape \[4\]: .*\[times, D\]"),
    (RecurrentNetwork(), IMAGES, "", r"recurrent .* shape \[8, 8, 1\]: .*\[times, D\]"),
    (TransformerNetwork(), VECTORS, "", r"transformer .* shape \[4\]: .*\[times, D\]"),
]  # fmt: skip


@pytest.mark.parametrize(("network", "shape", "place", "words"), UNTAKEN)
def test_a_shape_that_a_block_cannot_take_is_refused_with_both_shapes(
    network: BaseNetwork, shape: Shape, place: str, words: str
) -> None:
    with pytest.raises(ShapeError, match=words) as error:
        network.check_shape(shape)
    assert ".".join(map(str, error.value.place)) == place


def test_a_network_outlives_a_round_trip() -> None:
    network = composed(DENSE, {"block": "residual", "branch": [CONVOLUTION], "scale": 0.5}, READOUT)
    assert ComposedNetwork.model_validate_json(network.model_dump_json()) == network


def test_a_block_from_elsewhere_is_one_class() -> None:
    class Halve(Block):
        """Every second position."""

        block: Literal["halve"] = "halve"

        def shape_after(self, shape: Shape) -> Shape:
            return shape.at(tuple(-(-n // 2) for n in shape.positions))

    try:
        network = composed(DENSE, {"block": "residual", "branch": [DENSE]}, {"block": "halve"}, READOUT)
        assert [str(shape) for shape in network.check_shape(SEQUENCE)][-2] == "[3, N]"
        assert ComposedNetwork.model_validate_json(network.model_dump_json()) == network
    finally:
        assert BLOCKS.pop("halve") is Halve


def test_the_readout_takes_any_positions() -> None:
    for shape in (Shape((3, 2)), Shape((3,)), Shape(())):
        assert ReadoutBlock().shape_after(shape) == Shape(())


def test_images_have_shapes_that_networks_are_told() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 4, 4, 2), dtype=np.uint8)
    flat = InputData.model_validate({"inputs": images.reshape(3, -1), "targets": [1, -1, 1]})
    assert flat.sizes.shape == Shape((), 32)
    assert SolveRequest(data=flat).network == MlpNetwork()
    given_images = InputData.model_validate({"inputs": images, "targets": [1, -1, 1]})
    assert given_images.sizes.shape == Shape((4, 4), 2)
    assert given_images.inputs.tolist() == images.tolist()
    with pytest.raises(ValidationError) as error:
        SolveRequest.model_validate({"data": {"inputs": images, "targets": [1, -1, 1]}})
    assert "[4, 4, 2]: flatten them to [32]" in problem_of(error.value).detail
