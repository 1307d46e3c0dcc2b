"""What every method owes its users, for each method with each network and backward rule it takes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import TypeAdapter

from dmft_engine import Problem, Result, solve
from dmft_engine.model.activations import ACTIVATIONS
from dmft_engine.model.networks import ARCHITECTURES
from dmft_engine.weights.initialisation import BACKWARD_RULES
from dmft_schema import JobStatus, Progress, kernel_slice
from dmft_schema.data import DIGITS_PER_CLASS
from dmft_schema.methods import METHODS
from dmft_schema.network import Network
from dmft_schema.outputs import Outputs
from dmft_schema.support import CONFLICTS, FEATURES, UNSUPPORTED
from dmft_schema.training import Training
from tests.problems import request, run

NETWORK: TypeAdapter[Network] = TypeAdapter(Network)
STEPS = 12
RATE = 0.02
SETTINGS: dict[str, dict[str, Any]] = {
    "dmft": {"samples": 1024, "replicas": 2},
    "alternating": {"samples": 512},
    "linear": {},
    "gradient_independence": {"samples": 1024, "replicas": 2},
    "perturbation": {"samples": 2048, "replicas": 2},
    "static_ntk": {},
    "finite_width": {"width": 64, "ensemble": 3},
}
"""Options that keep each method quick; a new method needs one line here."""

INPUTS = np.random.default_rng(2).normal(size=(5, 6)).tolist()
DATA = {
    "inputs": INPUTS[:3],
    "targets": [1.0, -1.0, 0.5],
    "test_inputs": INPUTS[3:],
    "test_targets": [0.0, 1.0],
}

BRANCH_SCALES = {"residual": 1.3}
"""beta, other than 1 so that an engine which forgot it would be seen."""

MODELS = {get_args(model.model_fields["name"].annotation)[0]: model for model in METHODS}
FLOAT64_ONLY = {
    name
    for name, model in MODELS.items()
    if "float32" not in get_args(model.model_fields["dtype"].annotation)
}
STEP_BY_STEP = [method for method in SETTINGS if method not in ("alternating", "perturbation")]
"""Methods that go once through training; the others go through it several times."""


def features(sections: dict[str, Any]) -> set[str]:
    """What a request with these sections asks for, whether or not any method takes it."""
    asked = SimpleNamespace(
        network=NETWORK.validate_python(sections.get("network", {})),
        training=Training(**sections.get("training", {})),
        outputs=Outputs(**sections.get("outputs", {})),
    )
    return {name for name, feature in FEATURES.items() if feature.used(asked)}


def allowed(method: str, sections: dict[str, Any]) -> bool:
    """Whether the table of what goes together lets a method have these sections of a request."""
    used = features(sections)
    barred = UNSUPPORTED[method] | (UNSUPPORTED["static_ntk"] if "lazy" in used else set())
    return not used & barred and not any({one, other} <= used for one, other, _ in CONFLICTS)


def activation_for(method: str, wanted: str = "tanh") -> str:
    """The activation wanted, or linear for a method that takes no other."""
    return wanted if allowed(method, {"network": {"activation": wanted}}) else "linear"


ALLOWED = [
    (method, architecture, activation)
    for method in SETTINGS
    for architecture in ARCHITECTURES
    for activation in ACTIVATIONS
    if allowed(method, {"network": {"architecture": architecture, "activation": activation}})
]
ALLOWED_RULES = [
    (method, architecture, rule)
    for method in SETTINGS
    for architecture in ARCHITECTURES
    for rule in BACKWARD_RULES
    if rule != "backpropagation"
    and allowed(
        method,
        {
            "network": {"architecture": architecture, "activation": activation_for(method)},
            "training": {"backward_rule": rule},
        },
    )
]


def problem(
    method: str,
    activation: str | None = None,
    options: dict[str, Any] | None = None,
    architecture: str = "mlp",
    **changes: Any,
) -> dict[str, Any]:
    """Sections of a request: `options` go to the method, `changes` replace whole sections."""
    sections = {
        "data": DATA,
        "network": {
            "architecture": architecture,
            "branch_scale": BRANCH_SCALES.get(architecture, 1.0),
            "depth": 2,
            "activation": activation or activation_for(method),
            "gamma0": 0.8,
        },
        "training": {"steps": STEPS, "learning_rate": RATE},
        "method": {"name": method} | SETTINGS[method] | (options or {}),
    }
    return sections | changes


def check_trajectory(result: Result, rate: float) -> None:
    """What holds of a success whatever its network and its way back."""
    arrays = result.arrays
    assert arrays["times"].tolist() == pytest.approx([rate * t for t in range(STEPS)])
    assert arrays["predictions"].shape == (STEPS, 3)
    assert arrays["test_predictions"].shape == (STEPS, 2)
    assert (arrays["predictions"][0] == 0).all()
    assert (arrays["test_predictions"][0] == 0).all()
    assert arrays["loss"][-1] < arrays["loss"][0]
    assert all(np.isfinite(array).all() for array in arrays.values())
    document = result.document()
    assert document.complete
    assert document.loss == arrays["loss"].tolist()
    assert set(document.manifest["arrays"]) == set(arrays)


def check_kernels(result: Result, positive: bool = True) -> None:
    """Two-time kernels are averages of products: symmetric, and `positive` semidefinite."""
    # |phi| of a few hundred thousand rounded products, and of a factor compressed to 1e-6 in float32.
    slack = 1e-4 if result.diagnostics.dtype == "float32" else 1e-9
    for name in ("phi", "g"):
        for layer in (1, 2):
            kernel = result.arrays[f"{name}_{layer}"]
            assert kernel.shape == (STEPS, 3, STEPS, 3)
            flat = kernel.reshape(STEPS * 3, STEPS * 3).astype(float)
            scale = np.abs(flat).max()
            assert np.abs(flat - flat.T).max() <= slack * scale
            if positive:
                assert np.linalg.eigvalsh((flat + flat.T) / 2)[0] >= -slack * scale


@pytest.mark.parametrize(("method", "architecture", "activation"), ALLOWED)
def test_every_result_keeps_the_contract(method: str, architecture: str, activation: str) -> None:
    # Kernels of the quadratic grow as the square of those below: it bears smaller steps only.
    rate = 5e-4 if activation == "quadratic" else RATE
    training = {"steps": STEPS, "learning_rate": rate}
    result = run(**problem(method, activation, architecture=architecture, training=training))
    check_trajectory(result, rate)
    # An expansion cut off at second order need not be positive.
    check_kernels(result, positive=method != "perturbation")
    arrays = result.arrays
    ntk = arrays["ntk"]
    assert ntk.shape == (STEPS, 3, 3)
    # K(t, t) = sum_l sigma_l^2 G^{l+1} Phi^l, with the kernels of this very result; sigma_1 is
    # beta / sqrt(L) of a residual branch. Other methods sum it for each replica and then average.
    inputs = np.array(DATA["inputs"])
    hidden = BRANCH_SCALES["residual"] ** 2 / 2 if architecture == "residual" else 1.0
    if method in ("linear", "static_ntk"):
        for t in (0, STEPS - 1):
            built = (
                kernel_slice(arrays, "g", 1, t) * (inputs @ inputs.T / 6)
                + hidden * kernel_slice(arrays, "g", 2, t) * kernel_slice(arrays, "phi", 1, t)
                + kernel_slice(arrays, "phi", 2, t)
            )
            np.testing.assert_allclose(ntk[t], built, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("method", "architecture", "rule"), ALLOWED_RULES)
def test_other_backward_rules_keep_it_without_an_ntk(method: str, architecture: str, rule: str) -> None:
    """f does not move with the Gram matrix of its gradients: a result must not pass one off as its ntk."""
    training = {"steps": STEPS, "learning_rate": RATE, "backward_rule": rule}
    result = run(**problem(method, architecture=architecture, training=training))
    check_trajectory(result, RATE)
    check_kernels(result)
    assert not any(name.startswith("ntk") for name in result.arrays)
    assert any("ntk is left out" in note for note in result.diagnostics.notes)


@pytest.mark.parametrize("method", SETTINGS)
def test_same_seed_same_numbers(method: str) -> None:
    first, second = run(**problem(method)), run(**problem(method))
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, second.arrays[name], err_msg=name)


@pytest.mark.parametrize("method", ["dmft", "finite_width"])
def test_other_seed_other_numbers_within_the_error_bars(method: str) -> None:
    first = run(**problem(method))
    second = run(**problem(method, options={"seed": 7}))
    assert (first.arrays["loss"][1:] != second.arrays["loss"][1:]).any()
    error = np.hypot(first.arrays["loss_standard_error"], second.arrays["loss_standard_error"])
    # Errors of few replicas are themselves uncertain: t with 2 degrees of freedom, 99.9%.
    assert (np.abs(first.arrays["loss"] - second.arrays["loss"]) <= 32 * error + 1e-9).all()


@pytest.mark.parametrize("method", SETTINGS)
def test_float64_and_float32_agree(method: str) -> None:
    if method in FLOAT64_ONLY:
        pytest.skip("in float64 only")
    results = [
        run(**problem(method, "softplus", options={"dtype": dtype})) for dtype in ("float32", "float64")
    ]
    # A direction may join in one precision and not in the other, so dmft differs by its truncation.
    atol = 1e-3 if method in ("dmft", "gradient_independence") else 1e-5
    np.testing.assert_allclose(results[0].arrays["loss"], results[1].arrays["loss"], atol=atol)


@pytest.mark.parametrize("method", SETTINGS)
def test_progress_reaches_the_end(method: str) -> None:
    heard: list[Progress] = []
    solve(Problem.from_request(request(**problem(method))), heard.append)
    # An iteration that converges reports its last step again, as the last of all.
    steps = list(dict.fromkeys(p.step for p in heard))
    assert all(p.loss is not None for p in heard)
    assert steps == list(range(1, heard[-1].steps + 1))
    assert heard[-1].fraction == 1.0


@pytest.mark.parametrize("method", STEP_BY_STEP)
def test_cancel_keeps_what_was_reached(method: str) -> None:
    steps = 0

    def stop() -> bool:
        nonlocal steps
        steps += 1
        return steps == 5

    whole = run(**problem(method))
    part = solve(Problem.from_request(request(**problem(method))), should_stop=stop)
    assert part.status is JobStatus.CANCELLED
    assert 5 <= len(part.arrays["loss"]) < STEPS
    reached = len(part.arrays["loss"])
    np.testing.assert_array_equal(part.arrays["loss"], whole.arrays["loss"][:reached])
    assert part.arrays["kernel_times"].tolist() == list(range(len(part.arrays["kernel_times"])))
    assert not part.document().complete


def test_perturbation_in_closed_form_goes_once_through_training() -> None:
    whole = run(**problem("perturbation", "linear"))
    steps = 0

    def stop() -> bool:
        nonlocal steps
        steps += 1
        return steps == 5

    part = solve(Problem.from_request(request(**problem("perturbation", "linear"))), should_stop=stop)
    np.testing.assert_array_equal(part.arrays["loss"], whole.arrays["loss"][:5])
    training = {"steps": 60, "learning_rate": 60.0}
    diverged = solve(Problem.from_request(request(**problem("perturbation", "linear", training=training))))
    assert diverged.error is not None
    assert diverged.error.step == len(diverged.arrays["loss"]) > 1


def test_cancel_keeps_the_last_iterate() -> None:
    built = Problem.from_request(request(**problem("alternating")))
    heard: list[Progress] = []
    part = solve(built, heard.append, should_stop=lambda: len(heard) == 3)
    assert part.status is JobStatus.CANCELLED
    assert part.diagnostics.converged is False
    assert part.arrays["loss"][-1] == pytest.approx(heard[-1].loss)
    assert part.arrays["iteration_loss_change"].shape == (3,)


@pytest.mark.parametrize("method", SETTINGS)
def test_kernel_times_choose_the_same_kernels(method: str) -> None:
    whole = run(**problem(method)).arrays
    chosen = run(**problem(method, outputs={"kernels": ["phi", "ntk"], "kernel_times": [-1, 0, 3]})).arrays
    assert chosen["kernel_times"].tolist() == [0, 3, STEPS - 1]
    assert "g_1" not in chosen
    np.testing.assert_allclose(
        kernel_slice(chosen, "phi", 2, 1, 2), kernel_slice(whole, "phi", 2, 3, -1), rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(chosen["ntk"][1], whole["ntk"][3], rtol=1e-5)


@pytest.mark.parametrize(
    ("method", "architecture"), sorted({(method, architecture) for method, architecture, _ in ALLOWED})
)
def test_vanishing_gamma0_meets_static_ntk(method: str, architecture: str) -> None:
    activation = activation_for(method, "erf")
    lazy = run(**problem("static_ntk", activation, architecture=architecture)).arrays
    network = problem(method, activation, architecture=architecture)["network"] | {"gamma0": 1e-3}
    if method == "finite_width":
        # 1/N: wide and many, and an error bar to judge by.
        options = {"width": 1024, "ensemble": 8, "dtype": "float64"}
    elif method in ("dmft", "gradient_independence"):
        options = {"samples": 4096, "replicas": 4, "dtype": "float64"}
    else:
        options = {}
    result = run(**problem(method, options=options, network=network)).arrays
    error = result.get("loss_standard_error", np.zeros(STEPS))
    # Corrections are of order gamma0^2 = 1e-6; t with 3 degrees of freedom, 99.9%.
    allowance = 1e-5 + 13 * error + (2 / 1024 if method == "finite_width" else 0)
    assert (np.abs(result["loss"] - lazy["loss"]) <= allowance).all()


@pytest.mark.parametrize("method", ["dmft", "linear", "gradient_independence", "perturbation"])
def test_gamma0_zero_is_static_ntk(method: str) -> None:
    network = {"depth": 2, "activation": "linear", "gamma0": 0}
    lazy = run(**problem("static_ntk", network=network))
    result = run(**problem(method, network=network))
    np.testing.assert_allclose(result.arrays["loss"], lazy.arrays["loss"], rtol=1e-12)
    assert "static_ntk" in result.diagnostics.notes[0]


@pytest.mark.parametrize("method", SETTINGS)
def test_divergence_is_a_failure_with_step_and_advice(method: str) -> None:
    training = {"steps": 60, "learning_rate": 60.0}
    result = solve(Problem.from_request(request(**problem(method, training=training))))
    assert result.status is JobStatus.FAILED
    assert result.error is not None
    assert result.error.code == "diverged"
    assert "learning_rate" in result.error.advice
    if method in STEP_BY_STEP:
        assert len(result.arrays["loss"]) == result.error.step
        assert np.isfinite(result.arrays["loss"]).all()


@pytest.mark.parametrize("method", SETTINGS)
def test_long_solves_write_factors(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if method in ("perturbation", "alternating"):
        pytest.skip("its kernels have no factors: requests for long ones are refused")
    whole = run(**problem(method)).arrays
    monkeypatch.setattr("dmft_engine.record.assembly.MAX_KERNEL_ENTRIES", 10)
    factored = run(**problem(method)).arrays
    assert "phi_1" not in factored
    for name in ("phi", "g"):
        expected = kernel_slice(whole, name, 2, 3, 7)
        # Compressed to 0.3 tolerance^2 of the largest entry (dmft), or to rounding.
        atol = 3e-5 * np.abs(whole[f"{name}_2"]).max()
        np.testing.assert_allclose(kernel_slice(factored, name, 2, 3, 7), expected, rtol=1e-5, atol=atol)


def test_counts_of_the_digits_are_the_librarys() -> None:
    from sklearn.datasets import load_digits

    assert tuple(np.bincount(load_digits().target)) == DIGITS_PER_CLASS


def test_digits_are_normalised_as_the_paper_does() -> None:
    data = {"dataset": "digits", "classes": [3, 8, 5], "samples": 9, "test_samples": 6, "seed": 1}
    built = Problem.from_request(request(data)).data
    np.testing.assert_allclose(built.kernel.diagonal(), 1.0)
    assert built.targets.shape == (9, 3)
    assert built.targets.sum(0).tolist() == [3.0, 3.0, 3.0]
    two = Problem.from_request(request(data | {"classes": [3, 8], "samples": 8})).data
    assert two.scalar_output
    assert two.targets.ravel().tolist() == [1.0] * 4 + [-1.0] * 4


def test_results_say_what_was_violated() -> None:
    result: Result = run(**problem("dmft"))
    invariants = result.document().manifest["invariants"]
    assert invariants["f(0) = 0"] == 0
    assert all(value < 1e-5 for value in invariants.values())
