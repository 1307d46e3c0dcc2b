"""Memory known before a solve starts: an estimate from above, and refusals that name a size that fits."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from dmft_engine import Problem, solve
from dmft_schema import JobStatus, Progress, SolveRequest
from dmft_schema.memory import Demand, memory_bytes, shortage
from tests.problems import request, sphere

CASES: dict[str, dict[str, Any]] = {
    "long": {"training": {"steps": 300, "learning_rate": 0.03}},
    "many samples": {"training": {"steps": 10}, "method": {"name": "dmft", "samples": 65536}},
    "many points": {"points": 50, "training": {"steps": 25}, "method": {"name": "dmft", "replicas": 2}},
    "relu": {"network": {"activation": "relu"}, "training": {"steps": 35}},
    "residual": {"network": {"architecture": "residual", "depth": 3}, "training": {"steps": 30}},
    "responses": {"training": {"steps": 40}, "outputs": {"responses": True}},
    "gradient flow": {"training": {"steps": 20, "dynamics": "gradient_flow"}},
    "alternating": {"training": {"steps": 50}, "method": {"name": "alternating", "max_iterations": 2}},
    "perturbation": {"training": {"steps": 20}, "method": {"name": "perturbation"}},
    "linear": {"points": 30, "network": {"activation": "linear"}, "method": {"name": "linear"}},
    "static": {"points": 100, "training": {"steps": 40}, "method": {"name": "static_ntk"}},
    "networks": {
        "training": {"steps": 10},
        "method": {"name": "finite_width", "width": 1500, "ensemble": 8, "dtype": "float32"},
    },
}
_SMOOTH = {"training": {"steps": 20, "learning_rate": 0.3}, "shape": (4, 4, 1)}
_LIMIT = {"method": {"name": "dmft", "samples": 4096, "replicas": 2, "tolerance": 0.05}}
CASES |= {
    "filters": _SMOOTH | _LIMIT | {"points": 5, "network": {"architecture": "convolutional", "depth": 2}},
    "attention": _SMOOTH | _LIMIT | {
        "points": 5, "shape": (3, 4),
        "network": {"architecture": "transformer", "depth": 1, "normalise": None},
    },
    "recurrence": _SMOOTH | _LIMIT | {"points": 6, "shape": (4, 3), "network": {"architecture": "recurrent"}},
    "wide filters": _SMOOTH | {
        "points": 6, "network": {"architecture": "convolutional"},
        "method": {"name": "finite_width", "width": 300, "ensemble": 4},
    },
}  # fmt: skip
PEAK = """
import json, sys
from dmft_engine import Problem, solve
from dmft_schema import SolveRequest
solved = solve(Problem.from_request(SolveRequest.model_validate(json.load(sys.stdin))))
assert solved.error is None, solved.error
# (getrusage would count what this process was forked from.)
(peak,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(peak.split()[1]) * 1024)
"""


def asked(points: int = 10, shape: tuple[int, ...] | None = None, **sections: Any) -> SolveRequest:
    data = sphere(points, math.prod(shape) if shape else 2 * points)
    if shape:
        data["inputs"] = np.reshape(data["inputs"], (points, *shape))
    return request(data, **sections)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_estimates_bound_what_a_process_takes(name: str) -> None:
    """From above, and not by so much that what would fit is refused."""
    given = asked(**CASES[name])
    run = subprocess.run(
        [sys.executable, "-c", PEAK],
        input=given.model_dump_json(),
        capture_output=True,
        text=True,
        check=True,
    )
    peak = json.loads(run.stdout)
    estimate = memory_bytes(Demand.of(given, given.data.sizes))
    assert peak <= estimate <= 3 * peak


def test_what_is_advised_fits_and_no_more() -> None:
    given = asked(500, training={"steps": 200})
    demand = Demand.of(given, given.data.sizes)
    found = shortage(demand, 8e9)
    assert found is not None
    assert re.search(r"needs about [\d.]+ GB of memory \(limit: 8.0 GB\)", found.message)
    tolerance = float(
        re.search(r"method.tolerance ([\d.]+), method.replicas 2 and 2 outputs", found.advice)[1]
    )  # type: ignore[index]
    points = int(re.search(r"with (\d+) training points", found.advice)[1])  # type: ignore[index]
    coarse = asked(
        500,
        training={"steps": 200},
        method={"tolerance": tolerance, "replicas": 2},
        outputs={"kernel_times": [0, -1]},
    )
    assert shortage(Demand.of(coarse, coarse.data.sizes), 8e9) is None
    for count, fits in ((points, True), (points + 1, False)):
        fewer = asked(count, training={"steps": 200})
        assert (shortage(Demand.of(fewer, fewer.data.sizes), 8e9) is None) == fits


@pytest.mark.parametrize(
    ("sections", "advice"),
    [
        ({"method": {"replicas": 16, "samples": 262144}}, "method.replicas 2"),
        ({"method": {"name": "finite_width", "width": 16000, "ensemble": 2}}, "method.width 8000"),
        ({"method": {"tolerance": 1e-4}, "training": {"steps": 2000}}, "outputs.kernel_times"),
    ],
)
def test_advice_is_about_what_takes_the_memory(sections: dict[str, Any], advice: str) -> None:
    given = asked(30, **sections)
    demand = Demand.of(given, given.data.sizes)
    found = shortage(demand, 0.5 * memory_bytes(demand))
    assert found is not None
    assert advice in found.advice


def test_a_solve_that_does_not_fit_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmft_engine.devices.available_bytes", lambda device: 6e8)
    heard: list[Progress] = []
    result = solve(Problem.from_request(asked(60)), heard.append)
    assert result.status is JobStatus.FAILED
    assert result.error is not None
    assert result.error.code == "out_of_memory"
    assert "limit: 0.6 GB) on cpu" in result.error.message
    assert "It would fit with" in result.error.advice
    assert not heard
    assert not result.arrays


def test_a_restart_that_would_not_fit_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmft_schema.memory.Demand.enough_samples", property(lambda demand: 1024))
    given = asked(10, training={"steps": 60})
    room = 1.001 * memory_bytes(Demand.of(given, given.data.sizes))
    monkeypatch.setattr("dmft_engine.devices.available_bytes", lambda device: room)
    result = solve(Problem.from_request(given))
    assert result.error is not None
    assert result.error.code == "out_of_memory"
    # What was reached before is kept.
    assert len(result.arrays["loss"]) > 1


@pytest.mark.parametrize("name", ["dmft", "finite_width", "static_ntk"])
def test_a_limit_below_what_is_free_is_honoured(name: str) -> None:
    """From the first check on: nothing has been solved."""
    asked = request(sphere(4, 8), training={"steps": 3}, method={"name": name})
    problem = Problem.from_request(asked)
    needed = memory_bytes(Demand.of(problem, problem.data.sizes))
    limited = solve(problem, memory_bytes=0.9 * needed)
    assert limited.error is not None
    assert (limited.error.code, limited.status) == ("out_of_memory", JobStatus.FAILED)
    assert "limit: " in limited.error.message
    assert solve(problem, memory_bytes=1.1 * needed).error is None
    assert solve(problem).error is None, "the limit was that solve's alone"
