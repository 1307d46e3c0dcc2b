"""A run is a state and a step: stopped anywhere, it goes on bit for bit, here and in another process."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dmft_engine import CannotResume, Problem, Result, Solving, solve
from dmft_engine.errors import EngineError
from dmft_engine.methods import method_for
from dmft_engine.record.assembly import assemble
from dmft_engine.training.reporter import Reporter
from dmft_schema import JobStatus, Progress, SolveRequest
from dmft_schema.extension import extended
from dmft_schema.memory import CHUNK_BYTES, Demand
from tests.problems import DATA as DATA_FOLDER
from tests.problems import request

ROOT = Path(__file__).parents[2]
INPUTS = np.random.default_rng(4).standard_normal((6, 4))
DATA: dict[str, Any] = {
    "inputs": INPUTS[:4].tolist(),
    "targets": [1, -1, 1, -1],
    "test_inputs": INPUTS[4:].tolist(),
    "test_targets": [1, 1],
}
THREE = DATA | {"targets": np.eye(3)[[0, 1, 2, 1]].tolist(), "test_targets": np.eye(3)[[0, 2]].tolist()}
LARGE = DATA | {name: (1e9 * np.array(DATA[name])).tolist() for name in ("inputs", "test_inputs")}
NETWORK = {"depth": 2, "gamma0": 0.8}
LINEAR = {**NETWORK, "activation": "linear"}
TRAINING = {"steps": 6, "learning_rate": 0.3}
FLOW = {**TRAINING, "dynamics": "gradient_flow"}
HEAVY = {**TRAINING, "momentum": 0.7, "weight_decay": 0.05}
BATCHES = {**TRAINING, "batch_size": 2, "schedule": "cosine"}
DROWNED = {**TRAINING, "learning_rate": 1e-9}
TIMES = {"kernel_times": [0, 3, 5]}
DMFT = {"name": "dmft", "samples": 512, "replicas": 2, "tolerance": 0.03}
WIDE = DMFT | {"samples": 1024, "tolerance": 0.1}
INDEPENDENT = DMFT | {"name": "gradient_independence"}
FINITE = {"name": "finite_width", "width": 20, "ensemble": 3}
ALTERNATING = {"name": "alternating", "samples": 256, "replicas": 2, "max_iterations": 4}
PERTURBATION = {"name": "perturbation", "samples": 512, "replicas": 2}


COMPOSED: dict[str, Any] = json.loads((DATA_FOLDER / "networks.json").read_text())["cases"]


def sections(method: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"data": DATA, "network": NETWORK, "training": TRAINING, "method": method} | changes


CASES: dict[str, dict[str, Any]] = {
    "limit": sections(DMFT),
    "limit, one layer": sections(DMFT, network={"depth": 1}, outputs=TIMES),
    "limit, momentum and decay": sections(DMFT, training=HEAVY),
    "limit, batches and a schedule": sections(DMFT, training=BATCHES),
    "limit, flow": sections(DMFT, training=FLOW),
    "limit, ntk readout": sections(DMFT | {"readout": "ntk"}, outputs=TIMES),
    "limit, three outputs": sections(DMFT, data=THREE, training={**TRAINING, "loss": "cross_entropy"}),
    "limit, residual with biases": sections(
        DMFT, network={**NETWORK, "architecture": "residual", "bias_scale": 0.3}
    ),
    "limit, responses and fields": sections(DMFT, outputs={"responses": True, "field_times": [1, 5]}),
    "limit, direct feedback": sections(
        DMFT, training={**TRAINING, "backward_rule": "direct_feedback_alignment"}
    ),
    "limit, upgraded": sections(DMFT, training=DROWNED),
    "limit, more samples": sections({"name": "dmft", "replicas": 2, "tolerance": 0.03}),
    "independent": sections(INDEPENDENT),
    "independent, algebraic": sections(INDEPENDENT, network=LINEAR),
    "linear": sections({"name": "linear"}, network=LINEAR, outputs={"responses": True}),
    "lazy": sections({"name": "static_ntk"}),
    "lazy, momentum": sections({"name": "static_ntk"}, training={**TRAINING, "momentum": 0.7}),
    "lazy, flow": sections({"name": "static_ntk"}, training=FLOW),
    "gamma0 = 0": sections(DMFT, network={"depth": 2, "gamma0": 0}),
    "expansion": sections(PERTURBATION, outputs=TIMES),
    "expansion, another epsilon": sections(PERTURBATION, data=DATA | {"targets": [40, -40, 40, -40]}),
    "expansion, closed": sections(PERTURBATION, network=LINEAR),
    "networks": sections(FINITE),
    "networks in parts": sections(FINITE, outputs={"field_times": [0, -1]}),
    "networks, flow": sections(FINITE, training=FLOW),
    "networks, momentum and decay": sections(FINITE, training=HEAVY),
    "networks in parts, upgraded": sections(FINITE, training=DROWNED),
    "alternating": sections(ALTERNATING | {"damping": 0.2}),
    "alternating, converged": sections(ALTERNATING | {"tolerance": 0.1, "max_iterations": 20}),
    "alternating, upgraded": sections(ALTERNATING, data=LARGE, training=DROWNED),
    **{
        f"{method['name']} of {kind}": {
            "data": {"inputs": kept["inputs"], "targets": kept["targets"]},
            "network": {"architecture": "composed", "layers": kept["layers"]},
            "training": {"learning_rate": kept["learning_rate"], "steps": 5, **training},
            "method": method,
            "outputs": {"kernel_times": [0, 3, 4]},
        }
        for kind, kept in COMPOSED.items()
        for method, training in ((WIDE, {}), (FINITE, {"momentum": 0.5}))
        if method is FINITE or "flatten" not in kind  # It visits thousands of directions.
    },
    "diverges": sections(DMFT, training={"steps": 60, "learning_rate": 60.0}),
}


@contextmanager
def small_parts(name: str) -> Iterator[None]:
    """What makes a case of its name: chunks of one network, populations that are too small at first."""
    with pytest.MonkeyPatch.context() as patch:
        if "parts" in name:
            patch.setitem(CHUNK_BYTES, "finite_width", 12_000)
        if "more samples" in name:
            patch.setattr(Demand, "enough_samples", property(lambda demand: 64))
        yield


def problem(name: str, **changes: Any) -> Problem:
    return Problem.from_request(request(**(CASES[name] | changes)))


def written(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def read(content: bytes) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True)
    return state


def with_states(given: Problem) -> tuple[Result, list[bytes]]:
    """A result, and the states before the first step and after each."""
    states = [written(Solving(given).state())]
    return solve(given, checkpoint=lambda solving: states.append(written(solving.state()))), states


def outcome(result: Result) -> dict[str, Any]:
    """All of a result but the time that it took, as plain values."""
    return {
        "status": result.status.value,
        "error": result.error and result.error.model_dump(),
        "arrays": {name: torch.from_numpy(np.array(array)) for name, array in result.arrays.items()},
        "diagnostics": result.diagnostics.model_dump(exclude={"wall_seconds"}),
    }


def check_same(result: dict[str, Any], expected: dict[str, Any], where: Any) -> None:
    for key in ("status", "error", "diagnostics"):
        assert result[key] == expected[key], where
    assert result["arrays"].keys() == expected["arrays"].keys(), where
    for name, array in result["arrays"].items():
        assert array.dtype == expected["arrays"][name].dtype, (where, name)
        assert torch.equal(array, expected["arrays"][name]), (where, name)


@pytest.mark.parametrize("name", CASES)
def test_stopped_after_any_step_it_goes_on_bit_for_bit(name: str) -> None:
    given = problem(name)
    with small_parts(name):
        whole, states = with_states(given)
        assert whole.status is (JobStatus.FAILED if name == "diverges" else JobStatus.SUCCEEDED)
        for stop in {0, 1, 2, len(states) // 2, len(states) - 2, len(states) - 1}:
            result = solve(given, resume=read(states[stop]))
            check_same(outcome(result), outcome(whole), stop)


def test_the_cases_take_the_ways_they_are_named_for() -> None:
    def notes(name: str) -> str:
        with small_parts(name):
            heard: list[Progress] = []
            result = solve(problem(name), heard.append)
        return " ".join([*result.diagnostics.notes, *(progress.message for progress in heard)])

    for name in CASES:
        if "upgraded" in name:
            assert "computed in float64" in notes(name)
    assert "begun again with" in notes("limit, more samples")
    assert "again with epsilon" in notes("expansion, another epsilon")
    assert "converged in" in notes("alternating, converged")
    with small_parts("networks in parts"):
        assert len(Solving(problem("networks in parts"))._method._chunks) == 3  # type: ignore[attr-defined]


GOES_ON = {
    name
    for name in CASES
    if not name.startswith(("alternating", "expansion", "networks in parts"))
    and name not in ("limit, batches and a schedule", "lazy, flow", "diverges")
} | {"limit, batches"}
"""Whose longer run passes through the shorter."""


def shorter(name: str, steps: int) -> SolveRequest:
    """A case's request, with fewer steps and no times beyond them."""
    asked = CASES.get(name) or sections(DMFT, training={**BATCHES, "schedule": "constant"})
    outputs = {
        key: [time for time in value if time < steps] if key.endswith("times") else value
        for key, value in asked.get("outputs", {}).items()
    }
    return request(**asked | {"training": asked["training"] | {"steps": steps}, "outputs": outputs})


@pytest.mark.parametrize("name", sorted({*CASES, "limit, batches"} - {"diverges"}))
def test_a_finished_run_goes_on_to_more_steps(name: str) -> None:
    """Exactly as one longer run; where its numbers are no part of that, it begins again by itself."""
    with small_parts(name):
        asked = shorter(name, 4)
        states: list[dict[str, Any]] = []
        done = solve(Problem.from_request(asked), checkpoint=lambda solving: states.append(solving.state()))
        longer = Problem.from_request(extended(asked, 7, done.diagnostics.samples))
        whole = outcome(solve(longer))
        going_on = Solving(longer, resume=states[-1])
        assert going_on.resumed == (name in GOES_ON)
        check_same(outcome(solve(longer, resume=states[-1])), whole, name)


def test_what_was_taken_does_not_move_with_the_run() -> None:
    for name in ("limit, momentum and decay", "networks, flow", "expansion", "linear"):
        taken: list[tuple[dict[str, Any], bytes]] = []

        def keep(solving: Solving, taken: list[tuple[dict[str, Any], bytes]] = taken) -> None:
            state = solving.state()
            taken.append((state, written(state)))

        given = problem(name)
        whole = outcome(solve(given, checkpoint=keep))
        for state, at_once in taken:
            assert written(state) == at_once, name
        solve(given, resume=taken[1][0])
        check_same(outcome(solve(given, resume=taken[1][0])), whole, name)


@pytest.mark.parametrize("name", ["limit", "limit, flow", "linear", "lazy", "expansion", "networks in parts"])
def test_a_cancelled_run_goes_on_from_where_it_stopped(name: str) -> None:
    given = problem(name)
    heard: list[Progress] = []
    states: list[dict[str, Any]] = []
    with small_parts(name):
        whole = outcome(solve(given))
        cancelled = solve(
            given,
            heard.append,
            lambda: len(heard) == 4,
            checkpoint=lambda solving: states.append(solving.state()),
        )
        assert cancelled.status is JobStatus.CANCELLED
        again: list[Progress] = []
        check_same(outcome(solve(given, again.append, resume=states[-1])), whole, name)
    # Progress goes on as well.
    assert again[0].step == 5
    assert again[0].fraction > heard[3].fraction


def test_seconds_of_all_parts_are_counted() -> None:
    given = problem("linear")
    _, states = with_states(given)
    state = read(states[2])
    state["seconds"] = 1000.0
    assert 1000.0 < solve(given, resume=state).diagnostics.wall_seconds < 2000.0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"network": {**NETWORK, "gamma0": 0.81}}, "network.gamma0 0.81, not 0.8"),
        ({"training": {**TRAINING, "learning_rate": 0.2}}, "training.learning_rate 0.2, not 0.3"),
        ({"training": {**TRAINING, "steps": 5}}, "cannot have fewer"),
        ({"method": DMFT | {"seed": 1}}, "method.seed 1, not 0"),
        ({"method": DMFT | {"samples": 1024}}, "method.samples 1024, not 512"),
        ({"method": FINITE}, "method."),
        ({"data": DATA | {"targets": [1, -1, 1, 1]}}, "the data"),
        ({"outputs": {"kernels": ["phi"]}}, "outputs.kernels"),
        ({"outputs": TIMES}, "other kernel_times or field_times"),
        ({"outputs": {"field_times": [1]}}, "other kernel_times or field_times"),
    ],
)
def test_a_state_of_another_problem_is_refused(changes: dict[str, Any], named: str) -> None:
    state = Solving(problem("limit")).state()
    with pytest.raises(CannotResume, match=named):
        Solving(problem("limit", **changes), resume=state)


def test_a_state_of_another_version_is_refused() -> None:
    state = Solving(problem("limit")).state()
    state["identity"]["numerics"] = "0"
    with pytest.raises(CannotResume, match="version 0"):
        Solving(problem("limit"), resume=state)


def test_alternating_goes_on_to_more_iterations_and_not_to_fewer() -> None:
    given = problem("alternating")
    _, states = with_states(given)
    more = problem("alternating", method={**CASES["alternating"]["method"], "max_iterations": 6})
    check_same(outcome(solve(more, resume=read(states[-1]))), outcome(solve(more)), "more")
    fewer = problem("alternating", method={**CASES["alternating"]["method"], "max_iterations": 3})
    with pytest.raises(CannotResume, match="max_iterations"):
        Solving(fewer, resume=read(states[-1]))


def test_a_failed_run_goes_on_from_before_only() -> None:
    solving = Solving(problem("diverges"))
    while not solving.ended:
        solving.advance()
    assert solving.status is JobStatus.FAILED
    with pytest.raises(EngineError, match="take an earlier one"):
        solving.state()


@pytest.mark.parametrize("name", ["limit, responses and fields", "networks in parts", "expansion", "linear"])
def test_a_solution_takes_nothing_away(name: str) -> None:
    with small_parts(name):
        given = problem(name)
        solver = method_for(given, "cpu")
        with torch.no_grad():
            solver.run(Reporter(solver.work, None, None))
        silent = Reporter(1, None, None)
        first, second = (
            assemble(given, solver.solution(), JobStatus.SUCCEEDED, None, "cpu", silent) for _ in range(2)
        )
    check_same(outcome(first), outcome(second), name)


@pytest.mark.parametrize(
    ("named", "before", "now", "expected"),
    [("all", 5, 9, "all"), ([0, 3], 5, 9, [0, 3]), ([0, -1], 5, 9, [0, 4, 8]), ([-5, -1], 5, 6, [0, 4, 5])],
)
def test_an_extended_request_keeps_the_times_that_were_kept(
    named: Any, before: int, now: int, expected: Any
) -> None:
    given = request(DATA, training={"steps": before}, outputs={"kernel_times": named})
    longer = extended(given, now, 1024)
    assert longer.outputs.kernel_times == expected
    assert (longer.training.steps, longer.method.samples) == (now, 1024)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="must be more"):
        extended(given, before)


def finish(folder: str) -> None:
    """What another process does: go on from each state in a folder, and leave the outcome beside it."""
    for saved in Path(folder).glob("*.state"):
        with small_parts(saved.stem):
            result = solve(problem(saved.stem), resume=torch.load(saved, weights_only=True))
        torch.save(outcome(result), saved.with_suffix(".outcome"))


@pytest.mark.slow
def test_another_process_goes_on_from_a_file(tmp_path: Path) -> None:
    expected = {}
    for name in CASES:
        with small_parts(name):
            whole, states = with_states(problem(name))
        expected[name] = outcome(whole)
        (tmp_path / f"{name}.state").write_bytes(states[len(states) // 2])
    # Threads as here: the order of a sum may hang on their number.
    code = (
        f"import torch; torch.set_num_threads({torch.get_num_threads()}); "
        f"from tests.engine.test_resume import finish; finish({str(tmp_path)!r})"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    for name, outcome_here in expected.items():
        there = torch.load(tmp_path / f"{name}.outcome", weights_only=True)
        check_same(there, outcome_here, name)
