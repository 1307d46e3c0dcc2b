"""Admission by what live workers can take, and what is said of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from jobs.store import JobStore
from jobs.workers import WorkerFacts
from tests.serving import SMALL

METHODS = ["dmft", "static_ntk", "finite_width"]
LARGE = {
    "data": {"dataset": "digits", "classes": [0, 1], "samples": 200},
    "training": {"steps": 200},
    "method": {"name": "finite_width", "width": 8000, "ensemble": 1},
}


def worker(memory_gb: float, **changes: object) -> WorkerFacts:
    known = {"device": "cpu", "slots": 2, "methods": METHODS, "numerics": "4", "host": "secret-host"}
    return WorkerFacts.model_validate(known | {"memory_bytes": memory_gb * 1e9} | changes)


@pytest.fixture
def crew(store: JobStore) -> Iterator[JobStore]:
    """A store in which workers announce themselves; none is left behind."""
    yield store
    for name in ("small", "large", "of old"):
        store.retire(name)


def needed(answer: httpx.Response) -> float:
    found = re.search(r"needs about ([\d.]+) GB", answer.json()["detail"])
    assert found is not None, answer.text
    return float(found[1])


def test_what_some_live_worker_can_take_is_admitted_whatever_the_api_has(
    crew: JobStore, ada: httpx.Client
) -> None:
    crew.announce("small", worker(0.7))
    refused = ada.post("/v1/solves", json=LARGE)
    assert (refused.status_code, refused.json()["code"]) == (422, "would_not_fit")
    detail = refused.json()["detail"]
    assert "(limit: 0.7 GB): it is what the live worker gives one solve (on cpu, 2 side by side)" in detail
    assert "DMFT_MEMORY_GB" in detail
    assert "It would fit with" in detail or "smaller" in detail
    size = needed(refused)
    crew.announce("large", worker(size / 2, device="cuda:0", slots=1))
    still = ada.post("/v1/solves", json=LARGE).json()["detail"]
    assert "the roomiest of 2 live workers gives one solve (on cuda:0, 1 side by side)" in still
    assert "the others from 0.7 GB" in still
    crew.announce("large", worker(1e4, device="cuda:0"))
    assert ada.post("/v1/solves", json=LARGE).status_code == 202
    assert ada.post("/v1/solves", json=SMALL).status_code == 202


def test_where_nobody_is_known_to_live_the_apis_own_limits_hold(crew: JobStore, ada: httpx.Client) -> None:
    nobody = ada.post("/v1/solves", json=SMALL | {"reuse": False})
    assert nobody.status_code == 202
    assert "no live worker" in nobody.json()["waiting_reason"]
    crew.announce("of old")
    assert ada.post("/v1/solves", json=SMALL | {"reuse": False}).status_code == 202


def test_a_method_that_no_live_worker_knows(crew: JobStore, ada: httpx.Client) -> None:
    crew.announce("small", worker(8, methods=["dmft", "linear"]))
    refused = ada.post("/v1/solves", json=SMALL)
    assert (refused.status_code, refused.json()["code"]) == (422, "method_unavailable")
    assert "static_ntk; they know dmft, linear" in refused.json()["detail"]


def test_what_everybody_may_know_of_live_workers(crew: JobStore, anonymous: httpx.Client) -> None:
    crew.announce("small", worker(4))
    crew.announce("large", worker(64, device="cuda:1", slots=1))
    answer = anonymous.get("/v1/capabilities")
    limits = answer.json()["limits"]
    assert (limits["memory_gb"], limits["device"]) == (64.0, "cuda:1")
    assert sorted((one["device"], one["memory_gb"], one["slots"]) for one in limits["workers"]) == [
        ("cpu", 4.0, 2),
        ("cuda:1", 64.0, 1),
    ]
    assert "secret-host" not in answer.text
    assert "pid" not in answer.text
    assert anonymous.get("/readyz").json()["workers"] == 2
