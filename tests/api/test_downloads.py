"""Ranges, validators and slices of results: what cannot be had is a problem like any other."""

from __future__ import annotations

import httpx
import pytest

from tests.serving import SMALL
from worker.supervisor import Supervisor


@pytest.fixture
def solved(ada: httpx.Client, supervisor: Supervisor) -> str:
    job = ada.post("/v1/solves", json=SMALL).json()["id"]
    supervisor.work()
    return f"/v1/solves/{job}"


@pytest.mark.parametrize("name", ["result", "result.npz"])
@pytest.mark.parametrize(
    "asked", ["bytes=99999999-", "bytes=x", "bytes=9-3", "bytes=", "bytes=-0", "pages=1-2"]
)
def test_ranges_that_cannot_be_had(ada: httpx.Client, solved: str, name: str, asked: str) -> None:
    size = len(ada.get(f"{solved}/{name}").content)
    for method in ("GET", "HEAD"):
        answer = ada.request(method, f"{solved}/{name}", headers={"Range": asked})
        assert answer.status_code == 416
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["content-range"] == f"bytes */{size}"
        assert method == "HEAD" or answer.json()["code"] == "range_not_satisfiable"


def test_ranges_that_can(ada: httpx.Client, solved: str) -> None:
    whole = ada.get(f"{solved}/result.npz")
    for asked, expected in (("bytes=0-0", whole.content[:1]), ("bytes=-7", whole.content[-7:])):
        answer = ada.get(f"{solved}/result.npz", headers={"Range": asked})
        assert (answer.status_code, answer.content) == (206, expected)
    stale = ada.get(f"{solved}/result.npz", headers={"Range": "bytes=0-0", "If-Range": '"other"'})
    assert (stale.status_code, stale.content) == (200, whole.content)
    head = ada.head(f"{solved}/result.npz", headers={"Range": "bytes=0-9"})
    assert (head.status_code, head.headers["content-length"], head.content) == (206, "10", b"")


def test_validators(ada: httpx.Client, solved: str) -> None:
    tag = ada.get(f"{solved}/result").headers["etag"]
    for known in (tag, f"W/{tag}", "*", f'"a", {tag}'):
        assert ada.get(f"{solved}/result", headers={"If-None-Match": known}).status_code == 304
    for unknown in (f'"x{tag[1:]}', '"a", "b"', tag.strip('"')):
        assert ada.get(f"{solved}/result", headers={"If-None-Match": unknown}).status_code == 200


def test_answers_hold_a_summary_and_a_link_to_the_request(ada: httpx.Client, solved: str) -> None:
    job = ada.get(solved).json()
    assert job["request"]["data"] == {"kind": "kernel", "points": 2, "test_points": 0, "outputs": 1}
    assert job["request"]["method"]["name"] == "static_ntk"
    whole = ada.get(job["links"]["request"])
    assert whole.json()["data"]["kernel"] == SMALL["data"]["kernel"]  # type: ignore[index]
    again = ada.post("/v1/solves", json=whole.json() | {"reuse": True}).json()
    assert again["request_hash"] == job["request_hash"]


def test_what_no_longer_validates_breaks_no_answer(ada: httpx.Client, solved: str, redis_client) -> None:
    """Records of another version, without a summary, with a request that this one does not know."""
    key = f"dmft:job:{solved.rsplit('/', 1)[1]}"
    for stored in ('{"data": {"kernel": 5}, "method": {"name": "new"}}', "[]", "not JSON", ""):
        redis_client.hdel(key, "summary")
        redis_client.hset(key, "request", stored)
        assert ada.get(solved).status_code == 200
        assert len(ada.get("/v1/solves").json()["items"]) == 1
        assert ada.get(f"{solved}/result").status_code == 200
    assert ada.delete(solved).status_code == 204
