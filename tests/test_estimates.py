"""Networks drawn at random: each is taken, with an estimate, or refused in words; nothing else."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dmft_schema import SolveRequest
from dmft_schema.layout import Layout
from dmft_schema.memory import Demand, memory_bytes, shortage
from dmft_schema.network import BaseNetwork, ComposedNetwork
from dmft_schema.refusal import problem_of
from dmft_schema.shapes import Shape

scales = st.sampled_from([1.0, 0.5, 2.0])
activations = st.sampled_from(["linear", "tanh", "relu", "erf"])
leaves = st.one_of(
    st.builds(lambda w, b: {"block": "dense", "weight_scale": w, "bias_scale": b - 0.5}, scales, scales),
    st.builds(
        lambda n, s, p: {"block": "convolution", "size": n, "stride": s, "padding": p},
        st.integers(1, 4),
        st.integers(1, 2),
        st.sampled_from(["same", "valid", "circular"]),
    ),
    st.builds(lambda n: {"block": "activation", "name": n}, activations),
    st.builds(lambda k, v: {"block": "normalise", "kind": k, "learned": v}, st.sampled_from(["rms", "layer"]),
              st.booleans()),
    st.builds(lambda n: {"block": "pool", "size": n}, st.integers(1, 3)),
    st.builds(lambda d, c: {"block": "attention", "head_size": d, "causal": c}, st.integers(1, 3),
              st.booleans()),
    st.builds(lambda a: {"block": "recurrence", "activation": a}, activations),
    st.just({"block": "readout", "positions": "last"}),
)  # fmt: skip
blocks = st.recursive(
    leaves,
    lambda inner: st.builds(
        lambda b, s: {"block": "residual", "branch": b, "scale": s},
        st.lists(inner, min_size=1, max_size=3),
        scales,
    ),
    max_leaves=4,
)
first = st.sampled_from([{"block": "dense"}, {"block": "convolution", "size": 2}])
readouts = st.sampled_from(["mean", "flatten", "last"]).map(lambda p: {"block": "readout", "positions": p})
layers = st.builds(lambda a, b, c: [a, *b, c], first, st.lists(blocks, max_size=6), readouts)
shapes = st.sampled_from([(5,), (4, 2), (1, 1), (4, 4, 1), (3, 5, 2), (1, 1, 3)])
methods = st.sampled_from(
    [
        {"name": "dmft"},
        {"name": "dmft", "samples": 1024, "tolerance": 0.05},
        {"name": "gradient_independence"},
        {"name": "static_ntk"},
        {"name": "finite_width", "width": 60},
        {"name": "alternating"},
        {"name": "linear"},
        {"name": "perturbation"},
    ]
)
outputs = st.sampled_from([{}, {"kernel_times": [0, -1]}, {"kernels": []}, {"responses": True}])


@settings(max_examples=500, deadline=None, derandomize=True)
@given(
    layers=layers,
    shape=shapes,
    method=methods,
    asked=outputs,
    gamma0=st.sampled_from([0.0, 0.3, 1.0]),
    momentum=st.sampled_from([0.0, 0.9]),
    classes=st.integers(1, 3),
)
def test_a_composition_is_taken_or_refused(
    layers: list[Any],
    shape: tuple[int, ...],
    method: Any,
    asked: Any,
    gamma0: float,
    momentum: float,
    classes: int,
) -> None:
    rng = np.random.default_rng(0)
    body = {
        "data": {"inputs": rng.normal(size=(4, *shape)), "targets": rng.normal(size=(4, classes))},
        "network": {"architecture": "composed", "layers": layers, "gamma0": gamma0},
        "training": {"momentum": momentum, "steps": 10},
        "method": method,
        "outputs": asked,
    }
    try:
        request = SolveRequest.model_validate(body)
    except ValidationError as error:
        for found in problem_of(error).errors or []:
            place, document = found.loc, body
            for part in place:  # It names what the user wrote.
                assert part in document or isinstance(part, int), found
                document = document[part]
            assert len(found.msg) > 20, found
        return
    demand = Demand.of(request, request.data.sizes)  # type: ignore[union-attr]
    needed = memory_bytes(demand)
    assert math.isfinite(needed)
    assert needed > 0
    assert demand.enough_samples % (demand.replicas * request.network.group) == 0
    lacking = shortage(demand, needed / 2)
    assert lacking is not None
    assert re.search(r"It would fit with|Use a much smaller problem", lacking.advice)
    assert shortage(demand, needed) is None


def composed(*layers: Any) -> BaseNetwork:
    return ComposedNetwork.model_validate({"architecture": "composed", "layers": list(layers)})


def test_the_layout_of_a_transformer_shares_its_stream() -> None:
    dense, attention = {"block": "dense"}, {"block": "attention", "head_size": 4}
    inner = {"block": "residual", "branch": [dense, {"block": "activation"}, dense]}
    network = composed(
        dense, {"block": "residual", "branch": [attention]}, inner, {"block": "readout", "positions": "mean"}
    )
    layout = Layout.of(network, Shape((5,), 3))
    assert layout is not None
    assert [(link.source, link.target) for link in layout.links] == [
        (None, 0), (0, 1), (0, 1), (0, 1), (1, 0), (0, 2), (2, 0),
    ]  # fmt: skip
    assert layout.populations == 3
    assert layout.links[0].inputs == 3
    assert layout.matrices == 6
    assert layout.group == 4


def test_the_layout_of_a_filter_has_a_matrix_for_each_offset() -> None:
    filters = {"block": "convolution", "size": 3, "stride": 2}
    layout = Layout.of(composed(filters, filters, {"block": "readout"}), Shape((8, 8), 3))
    assert layout is not None
    first, second = layout.links
    assert (first.rows_in, first.rows_out, first.inputs) == (64, 16, 27)
    assert (second.rows_in, second.rows_out, second.matrices) == (16, 4, 9)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({"name": "finite_width", "width": 500}, "method.width = 500 .* head_size, 3: use 501"),
        ({"name": "dmft", "samples": 4096}, r"1024 neurons .* head_size, 3: use 4092"),
    ],
)
def test_populations_are_whole_heads(method: dict[str, Any], words: str) -> None:
    network = {
        "architecture": "composed",
        "layers": [{"block": "dense"}, {"block": "attention", "head_size": 3}, {"block": "readout"}],
    }
    data = {"inputs": [[[1.0], [2.0]], [[0.5], [1.0]]], "targets": [1, -1]}
    with pytest.raises(ValidationError, match=words):
        SolveRequest.model_validate({"data": data, "network": network, "method": method})
    SolveRequest.model_validate({"data": data, "network": network})
