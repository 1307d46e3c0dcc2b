"""Two users: whatever route one calls, nothing of the other is in the answer or its headers."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from api.main import create_app
from jobs.keys import KeyStore
from jobs.settings import Settings
from tests.api.test_datasets import upload
from tests.serving import SMALL
from worker.supervisor import Supervisor

NAME, TAG, KEY = "adas-secret-name", "adas-secret-tag", "adas-idempotency-key"
HERS = SMALL | {"name": NAME, "tags": [TAG]}
SENT = {"Content-Type": "application/octet-stream"}

# How each route is called. A route that is added must be added here too.
CALLS: dict[tuple[str, str], dict[str, Any]] = {
    ("post", "/v1/solves"): {"json": SMALL, "headers": {"Idempotency-Key": KEY}},
    ("get", "/v1/solves"): {"params": {"tag": TAG}},
    ("get", "/v1/solves/{job_id}"): {},
    ("delete", "/v1/solves/{job_id}"): {},
    ("get", "/v1/solves/{job_id}/request"): {},
    ("post", "/v1/solves/{job_id}/cancel"): {},
    ("get", "/v1/solves/{job_id}/events"): {},
    ("get", "/v1/solves/{job_id}/result"): {},
    ("get", "/v1/solves/{job_id}/result.npz"): {},
    ("get", "/v1/solves/{job_id}/kernels/{kernel}"): {},
    ("get", "/v1/solves/{job_id}/figures/{kind}.{format}"): {},
    ("post", "/v1/datasets"): {"content": b"no archive", "headers": SENT},
    ("get", "/v1/datasets"): {},
    ("get", "/v1/datasets/{dataset_id}"): {},
    ("delete", "/v1/datasets/{dataset_id}"): {},
    ("get", "/v1/capabilities"): {},
    ("get", "/metrics"): {},
    ("get", "/version"): {},
    ("get", "/healthz"): {},
    ("get", "/readyz"): {},
}


@pytest.fixture
def operations(settings: Settings) -> list[tuple[str, str]]:
    """Every method and path of the application, by itself."""
    paths = create_app(settings).openapi()["paths"]
    return [(method, path) for path, methods in paths.items() for method in methods]


def test_every_route_is_known(operations: list[tuple[str, str]]) -> None:
    assert set(operations) == set(CALLS)


def test_nothing_of_another_user(
    ada: httpx.Client,
    bob: httpx.Client,
    keys: dict[str, str],
    redis_client: Any,
    supervisor: Supervisor,
    operations: list[tuple[str, str]],
) -> None:
    finished = ada.post("/v1/solves", json=HERS, headers={"Idempotency-Key": KEY}).json()
    supervisor.work()
    assert ada.post("/v1/solves", json=HERS).json()["cached"]
    dataset = upload(ada, 0.75)
    waiting = ada.post("/v1/solves", json=HERS | {"reuse": False}).json()
    user = KeyStore(redis_client).authenticate(keys["ada"])
    assert user is not None
    before = [ada.get(f"/v1/solves/{job['id']}").json() for job in (finished, waiting)]
    secrets = (NAME, TAG, user.id, "ada")
    for method, path in operations:
        for job in (finished["id"], waiting["id"]):
            names = {"job_id": job, "dataset_id": dataset, "kernel": "phi", "kind": "loss", "format": "png"}
            answer = bob.request(method, path.format(**names), **CALLS[method, path])
            if "{job_id}" in path or (method == "get" and "{dataset_id}" in path):
                unknown = names | {"job_id": "s_" + "0" * 24, "dataset_id": "0" * 64}
                none = bob.request(method, path.format(**unknown), **CALLS[method, path])
                assert answer.status_code == none.status_code == 404, (method, path)
                assert answer.json()["code"] == none.json()["code"]
            everything = answer.text + repr(answer.headers.multi_items())
            assert not [secret for secret in secrets if f'{secret}"' in everything], (method, path)
            if "{" not in path:
                assert job not in everything
                assert dataset not in everything
    assert not any(job["cached"] for job in bob.get("/v1/solves").json()["items"]), "reuse is off by default"
    after = [ada.get(f"/v1/solves/{job['id']}").json() for job in (finished, waiting)]
    for old, new in zip(before, after, strict=True):
        assert (new["status"], new["cancel_requested"]) == (old["status"], old["cancel_requested"])
    assert ada.get(f"/v1/datasets/{dataset}").status_code == 200
    supervisor.work()
    for job in bob.get("/v1/solves").json()["items"]:
        for name in ("result", "result.npz"):
            answer = bob.get(f"/v1/solves/{job['id']}/{name}")
            everything = answer.content + repr(answer.headers.multi_items()).encode()
            for secret in (NAME, TAG, user.id, finished["id"], waiting["id"]):
                assert secret.encode() not in everything
