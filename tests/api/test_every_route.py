"""What holds for every route, whichever there are: key first, known parameters only, HEAD, OPTIONS, Allow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.serving import SMALL

PUBLIC = {"/v1/capabilities", "/version", "/healthz", "/readyz"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def paths(anonymous: httpx.Client) -> dict[str, Any]:
    return anonymous.get("/openapi.json").json()["paths"]


PARTS = {"job_id": "s_none", "dataset_id": "0" * 64, "kernel": "phi", "kind": "loss", "format": "png"}


def filled(path: str) -> str:
    """The path with its parameters filled in."""
    return path.format(**PARTS)


def operations(paths: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Method, path with its parameters filled in, and path as documented."""
    for path, found in paths.items():
        for method in found:
            yield method.upper(), filled(path), path


def test_without_a_key_nothing_else_is_looked_at(anonymous: httpx.Client, paths: dict[str, Any]) -> None:
    """Not the body, not its type, not the parameters: whatever is wrong besides, the answer is 401."""
    bad_key = {"Authorization": "Bearer dmft_foreign"}
    for method, path, documented in operations(paths):
        for headers in ({}, bad_key, JSON, JSON | bad_key, {"Range": "bytes=x", "Last-Event-ID": "x"}):
            answer = anonymous.request(method, f"{path}?nonsense=1", content=b"{ broken", headers=headers)
            assert (answer.status_code == 401) == (documented not in PUBLIC), (method, path, headers)


def test_unknown_query_parameters_are_named(
    ada: httpx.Client, anonymous: httpx.Client, paths: dict[str, Any]
) -> None:
    for method, path, _ in operations(paths):
        answer = ada.request(method, path, params={"naem": "x", "page": "2"}, json=SMALL)
        assert answer.status_code == 422, (method, path)
        assert [error["loc"] for error in answer.json()["errors"]] == [["query", "naem"], ["query", "page"]]
    assert anonymous.get("/?page=2").status_code == 422
    known = ada.get("/v1/solves", params={"stauts": "failed"}).json()["detail"]
    assert "status" in known


def test_head_is_get_without_a_body(ada: httpx.Client, paths: dict[str, Any]) -> None:
    job = ada.post("/v1/solves", json=SMALL).json()["id"]
    ada.post(f"/v1/solves/{job}/cancel")
    for method, path, _ in operations(paths):
        if method != "GET":
            continue
        path = path.replace("s_none", job)
        whole, head = ada.get(path), ada.head(path)
        assert head.status_code == whole.status_code, path
        assert head.content == b""
        assert head.headers["content-type"] == whole.headers["content-type"]
        assert head.headers.get("content-length") == whole.headers.get("content-length")
    for path in ("/", "/docs", "/openapi.json"):
        assert ada.head(path).status_code == 200


def test_options_and_405_say_all_that_a_path_takes(
    ada: httpx.Client, anonymous: httpx.Client, paths: dict[str, Any]
) -> None:
    takes: dict[str, set[str]] = {}
    for method, path, _ in operations(paths):
        takes.setdefault(path, {"OPTIONS"}).add(method)
        if method == "GET":
            takes[path].add("HEAD")
    for path, expected in takes.items():
        options = anonymous.options(path)
        assert options.status_code == 204
        assert set(options.headers["allow"].split(", ")) == expected, path
        for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE"} - expected:
            refused = ada.request(method, path)
            assert refused.status_code == 405, (method, path)
            assert set(refused.headers["allow"].split(", ")) == expected
            assert method == "HEAD" or refused.json()["code"] == "method_not_allowed"
    assert anonymous.options("/nowhere").status_code == 404


@pytest.mark.parametrize("given", [None, "text/plain", "application/x-www-form-urlencoded", "json", "a/b/c"])
def test_json_must_be_said_to_be_json(ada: httpx.Client, given: str | None) -> None:
    headers = {} if given is None else {"Content-Type": given}
    answer = ada.post("/v1/solves", content=json.dumps(SMALL), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert "Content-Type: application/json" in answer.json()["detail"]


@pytest.mark.parametrize(
    "given", ["application/json", "Application/JSON; charset=utf-8", "application/x+json"]
)
def test_json_in_its_spellings(ada: httpx.Client, given: str) -> None:
    answer = ada.post("/v1/solves", content=json.dumps(SMALL), headers={"Content-Type": given})
    assert answer.status_code == 202


def test_encoded_bodies_are_refused_as_such(ada: httpx.Client) -> None:
    answer = ada.post("/v1/solves", content=b"x", headers=JSON | {"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("length", [65, 300, 5000])
@pytest.mark.parametrize("character", ["a", "0", "%C3%A9", "%E5%AD%97", "%00", "."])
def test_ids_of_any_length_are_answered(ada: httpx.Client, length: int, character: str) -> None:
    name = character * length
    for path in (f"/v1/solves/{name}", f"/v1/solves/{name}/result", f"/v1/datasets/{name}"):
        answer = ada.get(path)
        assert answer.status_code == 404, path
        assert len(answer.content) < 1000
    body = SMALL | {"data": {"dataset_id": "a" * length}}
    assert ada.post("/v1/solves", json=body).status_code == 422


def test_error_bodies_are_small_and_count_the_rest(ada: httpx.Client) -> None:
    many = {
        "unknown keys": {f"key{i}": 1 for i in range(2000)},
        "long keys": {"k" * 50_000: 1},
        "wrong kernels": {"outputs": {"kernels": ["x" * 100] * 15}},
        "a long value": {"network": {"activation": "y" * 50_000}},
        "a long tag": {"tags": ["z" * 50_000]},
    }
    for name, wrong in many.items():
        answer = ada.post("/v1/solves", json=SMALL | wrong)
        assert answer.status_code == 422, name
        assert len(answer.content) < 20_000, name
        assert len(answer.json()["errors"]) <= 20
    counted = ada.post("/v1/solves", json=SMALL | many["unknown keys"]).json()
    assert counted["error_count"] == 2000
    assert counted["detail"].endswith("and 1980 more")
    query = {f"unknown{i}": "x" * 10 for i in range(500)}
    assert len(ada.get("/v1/solves", params=query).json()["errors"]) == 20
