"""What Prometheus is told: true numbers, for an admin only, and never more series than there are routes."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families

from dmft_schema import JobStatus
from tests.serving import SMALL
from worker.supervisor import Supervisor


def samples(client: httpx.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def jobs(client: httpx.Client) -> dict[str, float]:
    found = samples(client)
    return {status.value: found["dmft_jobs", frozenset({("status", status.value)})] for status in JobStatus}


def test_solves_are_counted_by_status(root: httpx.Client, ada: httpx.Client, supervisor: Supervisor) -> None:
    nothing = jobs(root)
    first = ada.post("/v1/solves", json=SMALL).json()["id"]
    ada.post("/v1/solves", json=SMALL | {"training": {"steps": 6}})
    assert jobs(root) == nothing | {"queued": nothing["queued"] + 2}
    assert samples(root)["dmft_oldest_queued_seconds", frozenset()] > 0
    supervisor.work()
    assert ada.get(f"/v1/solves/{first}").json()["status"] == "succeeded"
    ended = jobs(root)
    assert ended["queued"] + ended["succeeded"] == nothing["queued"] + nothing["succeeded"] + 2
    assert ended["succeeded"] > nothing["succeeded"]
    ada.delete(f"/v1/solves/{first}")
    assert jobs(root)["succeeded"] == ended["succeeded"] - 1
    found = samples(root)
    assert found["dmft_free_bytes", frozenset({("folder", "artifacts")})] > 0
    assert found["dmft_redis_bytes", frozenset()] > 0


def test_answers_are_counted_by_route_not_by_path(root: httpx.Client, ada: httpx.Client) -> None:
    for index in range(20):
        ada.get(f"/v1/solves/s_{index}")
        ada.get(f"/nowhere/{index}")
        ada.request(f"ODD{index}", "/nowhere")
    found = samples(root)
    requests = {
        labels: value for (name, labels), value in found.items() if name == "dmft_http_requests_total"
    }
    asked = frozenset({("method", "GET"), ("route", "/v1/solves/{job_id}"), ("status", "404")})
    assert requests[asked] >= 20
    assert sum(value for labels, value in requests.items() if ("route", "none") in labels) >= 40
    assert len([labels for labels in requests if ("route", "none") in labels]) <= 3
    count = found[
        "dmft_http_request_seconds_count", frozenset({("method", "GET"), ("route", "/v1/solves/{job_id}")})
    ]
    assert count >= 20


def test_for_admins_only(ada: httpx.Client, anonymous: httpx.Client) -> None:
    assert anonymous.get("/metrics").status_code == 401
    answer = ada.get("/metrics")
    assert (answer.status_code, answer.json()["code"]) == (403, "admins_only")


def test_versions_and_headers_of_every_answer(anonymous: httpx.Client) -> None:
    assert set(anonymous.get("/version").json()) == {"version", "numerics", "python"}
    for path in ("/", "/version", "/nowhere", "/v1/solves"):
        headers = anonymous.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
