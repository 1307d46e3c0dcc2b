"""The life of a solve over HTTP."""

from __future__ import annotations

import io
import json
import threading

import httpx
import numpy as np
import pytest

from api.examples import SOLVE_EXAMPLES
from dmft_schema import JobStatus, kernel_slice
from jobs.keys import KeyStore
from jobs.store import JobStore
from tests.serving import SMALL
from worker.supervisor import Supervisor


def test_submit_solve_fetch(ada: httpx.Client, supervisor: Supervisor) -> None:
    created = ada.post("/v1/solves", json=SMALL | {"name": "mine", "tags": ["t"]})
    assert created.status_code == 202
    job = created.json()
    assert created.headers["location"] == f"/v1/solves/{job['id']}"
    assert (job["status"], job["name"], job["owner"]) == ("queued", "mine", "ada")
    early = ada.get(f"/v1/solves/{job['id']}/result")
    assert (early.status_code, early.json()["code"]) == (409, "job_not_finished")

    supervisor.work()
    done = ada.get(f"/v1/solves/{job['id']}").json()
    assert done["status"] == "succeeded"
    result = ada.get(done["links"]["result"]).json()
    assert len(result["loss"]) == 5
    with np.load(io.BytesIO(ada.get(done["links"]["npz"]).content)) as arrays:
        assert arrays["loss"].tolist() == result["loss"]
        for name, layer in (("phi", 1), ("phi", -1), ("g", 2), ("ntk", None)):
            query = {"t": -1} if layer is None else {"layer": layer, "t": -1, "s": -1}
            answer = ada.get(f"/v1/solves/{job['id']}/kernels/{name}", params=query).json()
            assert answer["values"] == kernel_slice(arrays, name, layer, -1, -1).tolist()
            assert answer["t"] == answer["s"] == 4


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("phi?layer=4", 404),
        ("phi?layer=0", 404),
        ("phi", 404),
        ("phi?layer=1&t=5", 422),
        ("phi?layer=1&t=-6", 422),
        ("ntk?t=0&s=1", 422),
        ("a?layer=1", 404),
        ("psi", 422),
    ],
)
def test_kernel_slices_that_do_not_exist(
    ada: httpx.Client, supervisor: Supervisor, query: str, status: int
) -> None:
    job = ada.post("/v1/solves", json=SMALL).json()
    supervisor.work()
    answer = ada.get(f"/v1/solves/{job['id']}/kernels/{query}")
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]


@pytest.mark.parametrize("method", ["dmft", "linear"])
def test_slices_of_responses(ada: httpx.Client, supervisor: Supervisor, method: str) -> None:
    """A^1 and B^1 at (t, s), with and without the point axis of the backward field; both are causal."""
    body = SMALL | {
        "network": {"depth": 2, "activation": "linear"},
        "method": {"name": method},
        "outputs": {"responses": True},
    }
    job = ada.post("/v1/solves", json=body).json()
    supervisor.work()
    stored = ada.get(f"/v1/solves/{job['id']}/result.npz").content
    with np.load(io.BytesIO(stored)) as arrays:
        a, b = arrays["a_1"], arrays["b_1"]
    expected = {"a": a[3, :, 1], "b": b[3, ..., 1, :]}
    for name, values in expected.items():
        path = f"/v1/solves/{job['id']}/kernels/{name}?layer=1"
        assert ada.get(f"{path}&t=3&s=1").json()["values"] == values.tolist()
        assert np.abs(values).max() > 0
        assert np.abs(ada.get(f"{path}&t=1&s=3").json()["values"]).max() == 0
        missing = ada.get(f"/v1/solves/{job['id']}/kernels/{name}?layer=2&t=3&s=1")
        assert (missing.status_code, missing.json()["code"]) == (404, "no_such_kernel")


@pytest.mark.parametrize("name", SOLVE_EXAMPLES)
def test_examples_of_the_reference_work_when_pasted(
    ada: httpx.Client, supervisor: Supervisor, name: str
) -> None:
    documented = ada.get("/openapi.json").json()["paths"]["/v1/solves"]["post"]["requestBody"]
    example = documented["content"]["application/json"]["examples"][name]["value"]
    created = ada.post("/v1/solves", json=example)
    assert created.status_code == 202, created.text
    supervisor.work()
    job = ada.get(f"/v1/solves/{created.json()['id']}").json()
    assert job["status"] == "succeeded", job["error"]


def test_ranges_and_etags(ada: httpx.Client, supervisor: Supervisor) -> None:
    job = ada.post("/v1/solves", json=SMALL).json()
    supervisor.work()
    url = f"/v1/solves/{job['id']}/result.npz"
    whole = ada.get(url)
    tag = whole.headers["etag"]
    assert "attachment" in whole.headers["content-disposition"]
    part = ada.get(url, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    rest = ada.get(url, headers={"Range": "bytes=20-", "If-Range": tag})
    assert (rest.status_code, rest.content) == (206, whole.content[20:])
    assert ada.get(url, headers={"If-None-Match": tag}).status_code == 304
    assert ada.get(url, headers={"If-None-Match": '"other"'}).status_code == 200
    assert ada.get(url, headers={"Range": "bytes=99999999-"}).status_code == 416


def test_same_idempotency_key_twice_is_one_solve(ada: httpx.Client, bob: httpx.Client) -> None:
    headers = {"Idempotency-Key": "abc"}
    first = ada.post("/v1/solves", json=SMALL, headers=headers)
    second = ada.post("/v1/solves", json=SMALL, headers=headers)
    assert (first.status_code, second.status_code) == (202, 200)
    assert first.json()["id"] == second.json()["id"]
    assert len(ada.get("/v1/solves").json()["items"]) == 1
    other = ada.post("/v1/solves", json=SMALL | {"name": "x"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    assert bob.post("/v1/solves", json=SMALL, headers=headers).status_code == 202


def test_same_request_again_is_answered_from_what_is_known(
    ada: httpx.Client, bob: httpx.Client, supervisor: Supervisor
) -> None:
    first = ada.post("/v1/solves", json=SMALL).json()
    supervisor.work()
    theirs = bob.post("/v1/solves", json=SMALL).json()
    assert (theirs["status"], theirs["cached"]) == ("queued", False)  # nothing of ada's is shown to bob
    again = ada.post("/v1/solves", json=SMALL | {"name": "other name"}).json()
    assert (again["status"], again["cached"]) == ("succeeded", True)
    results = [ada.get(f"/v1/solves/{job['id']}/result").json() for job in (first, again)]
    # The numbers are the first one's; whose they are and what it was called is each one's own.
    whose = [result.pop("manifest") for result in results]
    assert results[0] == results[1]
    assert [manifest["solve_id"] for manifest in whose] == [first["id"], again["id"]]
    assert [manifest["request"]["name"] for manifest in whose] == [None, "other name"]
    assert whose[0]["arrays"] == whose[1]["arrays"]
    assert ada.delete(f"/v1/solves/{first['id']}").status_code == 204
    assert ada.get(f"/v1/solves/{again['id']}/result").status_code == 200
    assert ada.post("/v1/solves", json=SMALL | {"reuse": False}).json()["status"] == "queued"


def test_cancel_and_delete(ada: httpx.Client, bob: httpx.Client, supervisor: Supervisor) -> None:
    job = ada.post("/v1/solves", json=SMALL).json()
    url = f"/v1/solves/{job['id']}"
    refused = ada.delete(url)
    assert (refused.status_code, refused.json()["code"]) == (409, "job_not_finished")
    for _ in range(2):
        cancelled = ada.post(f"{url}/cancel")
        assert (cancelled.status_code, cancelled.json()["status"]) == (202, "cancelled")
    assert supervisor.work() == 0
    no_result = ada.get(f"{url}/result")
    assert (no_result.status_code, no_result.json()["code"]) == (404, "no_result")
    assert [bob.delete(url).status_code, ada.delete(url).status_code] == [404, 204]
    assert [ada.delete(url).status_code, bob.delete(url).status_code] == [204, 404]
    assert ada.get(url).status_code == 404


def test_deleting_removes_the_files(ada: httpx.Client, supervisor: Supervisor, settings) -> None:
    job = ada.post("/v1/solves", json=SMALL).json()
    supervisor.work()
    results = settings.artifacts / "results"
    assert len(list(results.glob(f"{job['id']}.*"))) == 1
    ada.delete(f"/v1/solves/{job['id']}")
    assert list(results.glob(f"{job['id']}.*")) == []


def test_result_after_retention_answers_410(
    ada: httpx.Client, bob: httpx.Client, supervisor: Supervisor, store: JobStore, redis_client
) -> None:
    job = ada.post("/v1/solves", json=SMALL).json()
    supervisor.work()
    redis_client.zadd("dmft:expiring", {job["id"]: 1})
    store.reap()
    answer = ada.get(f"/v1/solves/{job['id']}/result")
    assert (answer.status_code, answer.json()["code"]) == (410, "result_expired")
    url = f"/v1/solves/{job['id']}"
    assert ada.get(url).status_code == 410
    assert bob.get(url).status_code == bob.get(f"{url}/result").status_code == 404
    assert ada.get("/v1/solves").json()["items"] == []


def test_listing_by_status_tag_and_page(ada: httpx.Client) -> None:
    ids = [ada.post("/v1/solves", json=SMALL | {"tags": [f"t{i % 2}"]}).json()["id"] for i in range(5)]
    page = ada.get("/v1/solves", params={"limit": 2}).json()
    assert [job["id"] for job in page["items"]] == [ids[4], ids[3]]
    rest = ada.get("/v1/solves", params={"limit": 200, "cursor": page["next_cursor"]}).json()
    assert [job["id"] for job in rest["items"]] == [ids[2], ids[1], ids[0]]
    assert rest["next_cursor"] is None
    tagged = ada.get("/v1/solves", params={"tag": "t1"}).json()["items"]
    assert [job["id"] for job in tagged] == [ids[3], ids[1]]
    assert ada.get("/v1/solves", params={"status": "running"}).json()["items"] == []


def parse(stream: str) -> list[dict[str, str]]:
    blocks = [block for block in stream.split("\n\n") if block and not block.startswith(":")]
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]


def test_events_up_to_the_final_status_and_resumed(ada: httpx.Client, supervisor: Supervisor) -> None:
    job = ada.post("/v1/solves", json=SMALL).json()
    supervisor.work()
    url = f"/v1/solves/{job['id']}/events"
    answer = ada.get(url)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = parse(answer.text)
    kinds = [event["event"] for event in events]
    assert kinds[0] == kinds[-1] == "status"
    assert "progress" in kinds
    assert json.loads(events[-1]["data"])["status"] == "succeeded"
    resumed = parse(ada.get(url, headers={"Last-Event-ID": events[0]["id"]}).text)
    assert resumed == events[1:]
    assert parse(ada.get(url, headers={"Last-Event-ID": events[-1]["id"]}).text) == []
    bad = ada.get(url, headers={"Last-Event-ID": "yesterday"})
    assert (bad.status_code, bad.json()["errors"][0]["loc"]) == (422, ["header", "Last-Event-ID"])


def test_prefer_wait(ada: httpx.Client, supervisor: Supervisor) -> None:
    thread = threading.Timer(0.3, supervisor.work)
    thread.start()
    answer = ada.post("/v1/solves", json=SMALL, headers={"Prefer": "wait=5"})
    thread.join()
    assert answer.json()["status"] == "succeeded"
    assert answer.headers["preference-applied"] == "wait=5"
    waited = ada.post("/v1/solves", json=SMALL | {"reuse": False}, headers={"Prefer": "wait=1"})
    assert (waited.status_code, waited.json()["status"]) == (202, "queued")


def test_uploaded_data_is_solved_like_given_data(ada: httpx.Client, supervisor: Supervisor) -> None:
    inputs = np.random.default_rng(0).normal(size=(6, 5))
    targets = np.sign(inputs[:, 0])
    buffer = io.BytesIO()
    np.savez(buffer, x=inputs[:4], y=targets[:4], x_test=inputs[4:], y_test=targets[4:])
    first = ada.post("/v1/datasets", content=buffer.getvalue())
    again = ada.post("/v1/datasets", content=buffer.getvalue())
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json() | {"points": 4, "test_points": 2, "outputs": 1}
    given = {
        "inputs": inputs[:4].tolist(),
        "targets": targets[:4].tolist(),
        "test_inputs": inputs[4:].tolist(),
        "test_targets": targets[4:].tolist(),
    }
    results = []
    for data in ({"dataset_id": first.json()["id"]}, given):
        job = ada.post("/v1/solves", json=SMALL | {"data": data}).json()
        supervisor.work()
        result = ada.get(f"/v1/solves/{job['id']}/result").json()
        results.append([result[key] for key in ("loss", "predictions", "test_loss", "test_predictions")])
    assert results[0] == results[1]


def test_uploads_are_checked_against_the_size_limit(ada: httpx.Client) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.random.default_rng(0).normal(size=(300, 2)), y=np.ones(300))
    dataset = ada.post("/v1/datasets", content=buffer.getvalue()).json()["id"]
    body = SMALL | {"data": {"dataset_id": dataset}, "training": {"steps": 100_000}}
    answer = ada.post("/v1/solves", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"] == ["training", "steps"]


def test_capabilities_health_and_page(anonymous: httpx.Client, store: JobStore) -> None:
    capabilities = anonymous.get("/v1/capabilities").json()
    assert "dmft" in capabilities["methods"]
    assert capabilities["limits"]["max_body_bytes"] == 200_000
    assert anonymous.get("/healthz").json() == {"status": "ok"}
    not_ready = anonymous.get("/readyz")
    assert (not_ready.status_code, not_ready.json()["code"]) == (503, "no_live_worker")
    store.announce("w")
    assert anonymous.get("/readyz").json() == {"status": "ready", "workers": 1}
    assert "<title>dmft-service</title>" in anonymous.get("/").text
    assert anonymous.get("/docs").status_code == 200


def test_request_ids_are_kept_if_sane(anonymous: httpx.Client) -> None:
    assert anonymous.get("/healthz", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert len(anonymous.get("/healthz", headers={"X-Request-ID": "a b\tc"}).headers["x-request-id"]) == 16


def test_a_revoked_key_is_refused(ada: httpx.Client, redis_client) -> None:
    assert ada.get("/v1/solves").status_code == 200
    store = KeyStore(redis_client)
    store.revoke(next(info.id for info in store.list() if info.user.name == "ada"))
    assert ada.get("/v1/solves").status_code == 401


def test_status_names_are_the_contracts() -> None:
    assert [status.value for status in JobStatus] == ["queued", "running", "succeeded", "failed", "cancelled"]
