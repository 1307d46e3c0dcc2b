"""What goes together: the table, the request schema, `capabilities` and the engine say the same."""

from __future__ import annotations

import itertools
import re
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError

from dmft_engine.methods import METHODS
from dmft_engine.model.activations import ACTIVATIONS
from dmft_engine.model.blocks import BLOCKS
from dmft_engine.model.losses import LOSSES
from dmft_engine.model.networks import ARCHITECTURES
from dmft_engine.model.recipe import SCHEDULES
from dmft_engine.training.dynamics import DYNAMICS
from dmft_engine.weights.initialisation import BACKWARD_RULES
from dmft_schema import Capabilities, MlpNetwork
from dmft_schema.blocks import BLOCKS as BLOCK_MODELS
from dmft_schema.methods import Method
from dmft_schema.network import ARCHITECTURES as OFFERED
from dmft_schema.network import LayeredNetwork
from dmft_schema.outputs import Outputs
from dmft_schema.support import CONFLICTS, FEATURES, UNSUPPORTED
from dmft_schema.training import Training
from tests.engine.test_contract import (
    ALLOWED,
    DATA,
    FLOAT64_ONLY,
    MODELS,
    RATE,
    SETTINGS,
    STEPS,
    allowed,
    features,
    problem,
)
from tests.problems import request, run

ASKING: dict[str, dict[str, Any]] = {
    "nonlinear": {"network": {"activation": "tanh"}},
    "kinks": {"network": {"activation": "relu"}},
    "residual": {"network": {"architecture": "residual", "branch_scale": 1.3}},
    "composed": {"network": {"architecture": "composed"}},
    "scales": {"network": {"weight_scales": [1.2, 0.8, 1.1]}},
    "biases": {"network": {"bias_scale": 0.3}},
    "lazy": {"network": {"gamma0": 0}},
    "momentum": {"training": {"momentum": 0.5}},
    "weight_decay": {"training": {"weight_decay": 0.1}},
    "flow": {"training": {"dynamics": "gradient_flow"}},
    "feedback": {"training": {"backward_rule": "feedback_alignment"}},
    "direct_feedback": {"training": {"backward_rule": "direct_feedback_alignment"}},
    "responses": {"outputs": {"responses": True}},
    "fields": {"outputs": {"field_times": [0, -1]}},
}
"""What asks for each feature of the table, and for no more than it implies."""

MADE_OF_BLOCKS = {name for name, model in OFFERED.items() if not issubclass(model, LayeredNetwork)}
"""Architectures that the engine knows by their blocks alone."""

NOT_COMPOSED = {method for method, barred in UNSUPPORTED.items() if "composed" in barred}

IMPLIED = {"kinks": {"nonlinear"}, "direct_feedback": {"feedback"}}


def asking(method: str, *wanted: str) -> dict[str, Any]:
    """Sections of a request of a deep linear network that asks for these features."""
    # Only the exact readout takes momentum, say: what it takes is not a matter of the method.
    readout = {"readout": "exact"} if "readout" in MODELS[method].model_fields else {}
    sections: dict[str, Any] = {
        "data": DATA,
        "network": {"depth": 2, "activation": "linear", "gamma0": 0.8},
        "training": {"steps": STEPS, "learning_rate": RATE},
        "outputs": {},
        "method": {"name": method} | SETTINGS[method] | readout,
    }
    for feature in wanted:
        for section, fields in ASKING[feature].items():
            sections[section] = sections[section] | fields
    if sections["network"].get("architecture") == "composed":
        sections["network"] = composed(sections["network"])
    return sections


def composed(network: dict[str, Any]) -> dict[str, Any]:
    """The blocks of an mlp's settings."""
    depth = network["depth"]
    scales = network.get("weight_scales", [1.0] * (depth + 1))
    layers: list[dict[str, Any]] = []
    for scale in scales[:depth]:
        bias = network.get("bias_scale", 0.0)
        layers.append({"block": "dense", "weight_scale": scale, "bias_scale": bias})
        layers.append({"block": "activation", "name": network["activation"]})
    layers.append({"block": "readout", "weight_scale": scales[-1]})
    return {"architecture": "composed", "gamma0": network["gamma0"], "layers": layers}


def refusal(sections: dict[str, Any]) -> str | None:
    """What the request schema answers; None if it takes it."""
    try:
        request(**sections)
    except ValidationError as error:
        return str(error)
    return None


def choices(model: type[BaseModel], field: str) -> set[str]:
    """What a field of the schema, or each entry of a list, may be."""
    options = get_args(model.model_fields[field].annotation)
    return set(options if isinstance(options[0], str) else get_args(options[0]))


def choices_of_methods(field: str) -> set[str]:
    """What an option may be, over the methods that have it."""
    return set().union(*(choices(m, field) for m in MODELS.values() if field in m.model_fields))


def test_schema_capabilities_and_engine_are_the_same_set() -> None:
    listed = Capabilities.of_contract("x")
    # What the engine keeps in no table shows in results. Kernels alone have more than two axes.
    made = run(**problem("linear")).arrays
    kernels = {name.split("_")[0] for name, array in made.items() if array.ndim > 2}
    dtypes = {
        str(run(**problem("finite_width", options={"dtype": name})).arrays["ntk"].dtype)
        for name in listed.dtypes
    }
    # A readout that the engine did not tell from another one would have its numbers.
    readouts = {
        run(**problem("linear", options={"readout": name})).arrays["loss"].tobytes(): name
        for name in listed.readouts
    }
    sets = {
        "methods": (set(MODELS), METHODS),
        "activations": (choices(MlpNetwork, "activation"), ACTIVATIONS),
        "architectures": (set(OFFERED), ARCHITECTURES.keys() | MADE_OF_BLOCKS),
        "losses": (choices(Training, "loss"), LOSSES),
        "schedules": (choices(Training, "schedule"), SCHEDULES),
        "dynamics": (choices(Training, "dynamics"), DYNAMICS),
        "backward_rules": (choices(Training, "backward_rule"), BACKWARD_RULES),
        "readouts": (choices_of_methods("readout"), readouts.values()),
        "kernels": (choices(Outputs, "kernels"), kernels),
        "dtypes": (choices_of_methods("dtype"), dtypes),
    }
    for name, (offered, implemented) in sets.items():
        assert set(getattr(listed, name)) == offered == set(implemented), name
    lists = {name for name, field in Capabilities.model_fields.items() if field.annotation == list[str]}
    assert lists == set(sets)
    assert set(BLOCKS) == set(BLOCK_MODELS)
    assert set(get_args(get_args(Method)[0])) == set(MODELS.values())
    assert set(SETTINGS) == set(METHODS) == set(UNSUPPORTED) == set(listed.unsupported)


def test_networks_that_go_with_a_method_are_the_same_set() -> None:
    listed = Capabilities.of_contract("x")
    every = list(itertools.product(listed.methods, ARCHITECTURES, listed.activations))
    by_schema, by_capabilities = set(), set()
    for method, architecture, activation in every:
        sections = problem(method, activation, architecture=architecture)
        if refusal(sections) is None:
            by_schema.add((method, architecture, activation))
        if not {FEATURES[name].field for name in features(sections)} & set(listed.unsupported[method]):
            by_capabilities.add((method, architecture, activation))
    assert by_schema == by_capabilities == set(ALLOWED)
    assert len(ALLOWED) < len(every)


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("method", SETTINGS)
def test_the_schema_refuses_what_the_table_forbids_and_nothing_else(method: str, feature: str) -> None:
    sections = asking(method, feature)
    used = features(sections)
    assert used == {feature} | IMPLIED.get(feature, set())
    forbidden = sorted(used & UNSUPPORTED[method])
    answer = refusal(sections)
    if not forbidden:
        assert answer is None
    else:
        assert answer is not None
        assert f"method {method} does not take {FEATURES[forbidden[0]].field}; " in answer


@pytest.mark.parametrize("method", SETTINGS)
def test_the_engine_solves_all_that_the_table_allows(method: str) -> None:
    """Each feature with each other: one that is allowed but was never thought of fails here."""
    for one, other in itertools.combinations_with_replacement(FEATURES, 2):
        sections = asking(method, one, other)
        answer = refusal(sections)
        assert (answer is None) == allowed(method, sections), (one, other, answer)
        if answer is not None:
            continue
        arrays = run(**sections).arrays
        assert arrays["predictions"].shape == (STEPS, 3), (one, other)
        assert all(np.isfinite(array).all() for array in arrays.values()), (one, other)
        assert arrays["loss"][-1] < arrays["loss"][0], (one, other)


@pytest.mark.parametrize("method", SETTINGS)
def test_no_option_that_a_method_takes_is_overlooked(method: str) -> None:
    """A method that passed over an option would answer with the numbers of another request."""
    plain = run(**asking(method)).arrays
    # static_ntk is the limit gamma0 -> 0 of any gamma0.
    # A composed network of an mlp's blocks is that mlp.
    for feature in set(FEATURES) - {"composed", "lazy" if method == "static_ntk" else ""}:
        sections = asking(method, feature)
        if not allowed(method, sections):
            continue
        arrays = run(**sections).arrays
        if "outputs" in ASKING[feature]:
            assert set(arrays) > set(plain), feature
        else:
            assert (arrays["loss"][2:] != plain["loss"][2:]).all(), feature


@pytest.mark.parametrize(("one", "other", "why"), CONFLICTS)
def test_conflicts_are_refused_by_the_names_of_both(one: str, other: str, why: str) -> None:
    pattern = f"{FEATURES[one].field} and {FEATURES[other].field} exclude each other: {why}"
    with pytest.raises(ValidationError, match=re.escape(pattern)):
        request(**asking("dmft", one, other))


@pytest.mark.parametrize("feature", sorted(UNSUPPORTED["static_ntk"]))
def test_the_lazy_limit_takes_what_static_ntk_takes(feature: str) -> None:
    """At gamma0 = 0 dmft hands over to it."""
    answer = refusal(asking("dmft", "lazy", feature))
    assert answer is not None
    assert f"method dmft at gamma0 = 0 does not take {FEATURES[feature].field}" in answer


@pytest.mark.parametrize(
    "method",
    [method for method in SETTINGS if method not in FLOAT64_ONLY],
)
def test_kernels_come_in_the_dtype_asked_for(method: str) -> None:
    for dtype in ("float32", "float64"):
        result = run(**problem(method, options={"dtype": dtype}))
        assert result.diagnostics.dtype == dtype
        assert {str(result.arrays[name].dtype) for name in ("phi_1", "g_2", "ntk")} == {dtype}


@pytest.mark.parametrize("method", sorted(set(SETTINGS) - NOT_COMPOSED))
def test_blocks_of_an_mlp_are_that_mlp(method: str) -> None:
    """The same draws in the same order: the two agree up to rounding, whatever else is asked for."""
    for also in ((), ("nonlinear",), ("nonlinear", "momentum"), ("nonlinear", "scales")):
        if method == "gradient_independence" and "nonlinear" not in also:
            continue  # Of a deep linear mlp it knows the exact answer.
        mlp, blocks = (run(**asking(method, *also, *more)).arrays for more in ((), ("composed",)))
        for name in ("loss", "test_predictions", "ntk", "phi_1", "g_1", "phi_2", "g_2"):
            scale = np.abs(mlp[name]).max()
            np.testing.assert_allclose(blocks[name], mlp[name], rtol=0, atol=2e-4 * scale, err_msg=name)
