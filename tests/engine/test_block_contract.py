"""What networks of blocks owe their users, for every block, method and option that go together."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from dmft_engine import Result
from dmft_schema import kernel_slice
from dmft_schema.blocks import BLOCKS
from dmft_schema.network import ComposedNetwork
from dmft_schema.refusal import problem_of
from tests.engine.test_contract import allowed
from tests.networks import COMPOSITIONS, data_of, network_of
from tests.problems import request, run

STEPS = 4
METHODS: dict[str, dict[str, Any]] = {
    "dmft": {"samples": 512, "replicas": 2, "tolerance": 0.05},
    "gradient_independence": {"samples": 512, "replicas": 2, "tolerance": 0.05, "readout": "exact"},
    "static_ntk": {},
    "finite_width": {"width": 24, "ensemble": 3},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "momentum": {"training": {"momentum": 0.5}},
    "weight_decay": {"training": {"weight_decay": 0.3}},
    "schedule": {"training": {"schedule": "cosine"}},
    "batches": {"training": {"batch_size": 2}},
    "flow": {"training": {"dynamics": "gradient_flow"}},
    "logistic": {"training": {"loss": "logistic"}, "targets": [1.0, -1.0, 1.0]},
    "hinge": {"training": {"loss": "hinge"}, "targets": [1.0, -1.0, 1.0]},
    "cross_entropy": {
        "training": {"loss": "cross_entropy"},
        "targets": [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]],
    },
    "fields": {"outputs": {"field_times": [0, -1], "field_neurons": 4}},
    "float64": {"method": {"dtype": "float64"}},
}


def sections(name: str, method: str, option: str = "plain", gamma0: float = 0.8) -> dict[str, Any]:
    extra = OPTIONS[option]
    return {
        "data": data_of(name, *([extra["targets"]] if "targets" in extra else [])),
        "network": network_of(name, gamma0=gamma0),
        "training": {"steps": STEPS, "learning_rate": 0.2} | extra.get("training", {}),
        "method": {"name": method} | METHODS[method] | extra.get("method", {}),
        "outputs": extra.get("outputs", {}),
    }


def refusal(name: str, method: str, option: str = "plain") -> str | None:
    """What the request schema answers; None if it takes it."""
    try:
        request(**sections(name, method, option))
    except ValidationError as error:
        return problem_of(error).detail
    return None


COMBINATIONS = list(itertools.product(COMPOSITIONS, METHODS, OPTIONS))
ALLOWED = [combination for combination in COMBINATIONS if refusal(*combination) is None]


def test_refusals_say_what_to_use() -> None:
    """What the table bars, and networks whose kernels at t = 0 do not close."""
    for name, method, option in COMBINATIONS:
        said = refusal(name, method, option)
        if not allowed(method, sections(name, method, option)):
            assert said is not None
        elif method != "static_ntk":
            assert said is None, said
        assert said is None or re.search("use (dmft|static_ntk|finite_width)", said), said


def solved(name: str, method: str, option: str = "plain") -> Result:
    return run(**sections(name, method, option))


def test_every_block_and_each_of_its_choices_is_tried() -> None:
    used = [ComposedNetwork.model_validate(network_of(name)).all_blocks for name in COMPOSITIONS]
    tried = {(type(block), field, str(getattr(block, field))) for blocks in used for block in blocks
             for field in type(block).model_fields}  # fmt: skip
    for model in BLOCKS.values():
        for field, info in model.model_fields.items():
            for choice in getattr(info.annotation, "__args__", ()):
                if isinstance(choice, str) and field not in ("name", "activation"):
                    assert (model, field, choice) in tried, (model, field, choice)
        assert any(isinstance(block, model) for blocks in used for block in blocks), model


@pytest.mark.parametrize(
    ("name", "method", "option"),
    [
        pytest.param(*case, id="-".join(case), marks=[] if case[2] == "plain" else pytest.mark.slow)
        for case in ALLOWED
    ],
)
def test_every_combination_is_solved(name: str, method: str, option: str) -> None:
    arrays = solved(name, method, option).arrays
    outputs = (2,) if option == "cross_entropy" else ()
    assert arrays["predictions"].shape == (STEPS, 3, *outputs)
    assert arrays["test_predictions"].shape == (STEPS, 2, *outputs)
    if method != "finite_width":
        # f(0) = 0 of the limit, up to what float32 leaves out of known directions (population.py), eps^0.6
        # of each field, over gamma0.
        left_out = np.finfo(np.float32).eps ** 0.6
        assert np.abs(arrays["predictions"][0]).max() < 4 * left_out / 0.8
    assert np.abs(arrays["predictions"][-1] - arrays["predictions"][0]).max() > 1e-3
    for key, array in arrays.items():
        assert np.isfinite(array).all(), key
    _check_kernels(arrays)


def _check_kernels(arrays: dict[str, Any]) -> None:
    """Symmetric and positive semidefinite, the NTK and every layer's phi and g."""
    layers = {int(key.split("_")[1]) for key in arrays if key.startswith("phi_")}
    assert layers == set(range(1, len(layers) + 1))
    for kernel, of in [("ntk", None), *((k, layer) for k in ("phi", "g") for layer in sorted(layers))]:
        at = kernel_slice(arrays, kernel, of, -1)
        flat = at.reshape(int(at.size**0.5), -1).astype(np.float64)
        scale = np.abs(flat).max()
        assert scale > 0, kernel
        np.testing.assert_allclose(flat, flat.T, atol=1e-5 * scale)
        assert np.linalg.eigvalsh((flat + flat.T) / 2).min() > -1e-4 * scale, kernel


PLAIN = [(name, method) for name, method, option in ALLOWED if option == "plain"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "method"), PLAIN)
def test_a_seed_repeats_and_test_points_do_not_train(name: str, method: str) -> None:
    whole = sections(name, method)
    first, again = run(**whole).arrays, run(**whole).arrays
    np.testing.assert_array_equal(first["loss"], again["loss"])
    alone = whole | {"data": {k: v for k, v in whole["data"].items() if k != "test_inputs"}}
    without = run(**alone).arrays
    # Test points' fields are known besides: other numbers are drawn, within the sampling error.
    error = 6 * np.hypot(first.get("loss_standard_error", 0.0), without.get("loss_standard_error", 0.0))
    assert (np.abs(first["loss"] - without["loss"]) <= error + 0.02).all()
