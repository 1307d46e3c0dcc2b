"""Bad input: each kind with its status, its code and the field at fault. None reaches the queue."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import re
import zipfile
from typing import Any

import httpx
import numpy as np
import pytest
import redis

from dmft_schema.memory import in_gigabytes
from dmft_schema.upload import UploadError, read_npz
from jobs.keys import KEYS
from tests.serving import SMALL


def changed(path: str, value: Any) -> dict[str, Any]:
    """SMALL with one field replaced; `path` is dotted."""
    body: dict[str, Any] = copy.deepcopy(SMALL)
    *parents, field = path.split(".")
    target = body
    for parent in parents:
        target = target.setdefault(parent, {})
    target[field] = value
    return body


INDEFINITE = [[1.0, 2.0], [2.0, 1.0]]
BAD_BODIES = [
    ("data.kernel", [[1.0, 0.3], [0.2, 1.0]], "data", "symmetric"),
    ("data.kernel", INDEFINITE, "data", "positive semidefinite"),
    ("data.kernel", [[1.0, 0.2, 0.1], [0.2, 1.0, 0.1]], "data", "square"),
    ("data.kernel", [[1.0, 0.2], [0.2]], "data.kernel", "one length"),
    ("data.kernel", [], "data.kernel", ""),
    ("data.kernel", [[0.0, 0.0], [0.0, 0.0]], "data", "zero"),
    ("data.kernel", [["a", "b"], ["c", "d"]], "data.kernel", "numbers"),
    ("data.kernel", [[True, False], [False, True]], "data.kernel", "numbers"),
    ("data.kernel", "1,2", "data.kernel", "list of rows"),
    ("data.targets", [1.0], "data", "rows"),
    ("data.targets", [[[1.0]], [[1.0]]], "data.targets", "shape"),
    ("data.targets", None, "data.targets", "numbers"),
    ("data", {"targets": [1.0]}, "data", "kernel"),
    ("data", {}, "data", ""),
    ("data", {"kernel": [[1.0]], "inputs": [[1.0]], "targets": [1.0]}, "data.inputs", "xtra"),
    ("data", {"dataset": "mnist"}, "data.dataset", "digits"),
    ("data", {"dataset": "digits", "classes": [0, 11], "samples": 4}, "data.classes", "0 to 9"),
    ("data", {"dataset": "digits", "classes": [0, 0], "samples": 4}, "data.classes", "distinct"),
    ("data", {"dataset": "digits", "classes": [0, 1], "samples": 100_000}, "data", "samples"),
    ("data", {"dataset_id": "0" * 64}, "data.dataset_id", "upload"),
    ("data", {"dataset_id": "../../etc/passwd"}, "data.dataset_id", ""),
    ("network.activation", "swish", "network.activation", "tanh"),
    ("network.architecture", "boltzmann", "network.architecture", "mlp"),
    ("network.depth", 0, "network.depth", "1"),
    ("network.depth", 33, "network.depth", "32"),
    ("network.depth", 2.5, "network.depth", "integer"),
    ("network.gamma0", -1.0, "network.gamma0", "0"),
    ("network.dept", 3, "network.dept", "xtra"),
    ("training.steps", 10**9, "training.steps", "100000"),
    ("training.steps", 0, "training.steps", "1"),
    ("training.steps", "many", "training.steps", "integer"),
    ("training.learning_rate", 0, "training.learning_rate", "0"),
    ("training.loss", "l1", "training.loss", "mse"),
    ("method.name", "magic", "method", "dmft"),
    ("method", {"name": "dmft", "width": 3}, "method.width", "xtra"),
    ("method", {"name": "dmft", "samples": 10}, "method.samples", "64"),
    ("method", {"name": "dmft", "samples": 10**9}, "method.samples", "1000000"),
    ("method", {"name": "dmft", "samples": 130, "replicas": 4}, "method", "multiple of replicas"),
    ("method", {"name": "dmft", "replicas": 1}, "method.replicas", "2"),
    ("method", {"name": "dmft", "tolerance": 0}, "method.tolerance", ""),
    ("method", {"name": "dmft", "tolerance": 1e-8}, "method", "float64"),
    ("method", {"name": "finite_width", "width": 10**6}, "method.width", "16384"),
    ("method.dtype", "float16", "method.dtype", "float32"),
    ("method", "dmft", "method", ""),
    ("network.branch_scale", 2.0, "network", "residual"),
    ("network.branch_scale", 0.0, "network.branch_scale", "0"),
    ("training.dynamics", "sgd", "training.dynamics", "gradient_flow"),
    ("training.backward_rule", "hebb", "training.backward_rule", "feedback_alignment"),
    ("training", {"dynamics": "gradient_flow", "momentum": 0.5}, "request", "training.momentum"),
    ("training", {"dynamics": "gradient_flow", "batch_size": 1}, "request", "training.batch_size"),
    ("training.flow_tolerance", 0.5, "training.flow_tolerance", "0.1"),
    ("outputs.field_times", [0], "request", "use dmft or finite_width"),
    ("outputs.responses", True, "request", "use dmft, alternating or linear"),
    ("outputs.field_times", [0] * 101, "outputs.field_times", "100"),
    ("outputs.field_neurons", 10**6, "outputs.field_neurons", "10000"),
    ("outputs.kernels", ["psi"], "outputs.kernels.0", "phi"),
    ("outputs.kernel_times", [5], "request", "there are 5 steps"),
    ("outputs.kernel_times", [], "request", "at least one"),
    ("tags", ["x"] * 17, "tags", "16"),
    ("tags", [""], "tags.0", "1 character"),
    ("name", "x" * 201, "name", "200"),
    ("priority", 101, "priority", "100"),
    ("priorty", 1, "priorty", "xtra"),
]


@pytest.mark.parametrize(("path", "value", "field", "words"), BAD_BODIES)
def test_invalid_request_names_the_field_and_the_limit(
    ada: httpx.Client, redis_client: redis.Redis, path: str, value: Any, field: str, words: str
) -> None:
    answer = ada.post("/v1/solves", json=changed(path, value))
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "invalid_request"
    assert problem["request_id"] == answer.headers["x-request-id"]
    places = [".".join(map(str, error["loc"])) or "request" for error in problem["errors"]]
    assert field in places, problem["errors"]
    assert words.lower() in problem["detail"].lower()
    assert redis_client.keys("dmft:job:*") == []
    assert redis_client.llen("dmft") == 0


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize(
    "body",
    [
        '{"data": {"kernel": [[1, %s], [0.2, 1]], "targets": [1, -1]}}',
        '{"data": {"kernel": [[1, 0.2], [0.2, 1]], "targets": [1, %s]}}',
        '{"data": {"inputs": [[1, %s], [0.2, 1]], "targets": [1, -1]}}',
        '{"data": {"kernel": [[1]], "targets": [1]}, "network": {"gamma0": %s}}',
        '{"data": {"kernel": [[1]], "targets": [1]}, "training": {"learning_rate": %s}}',
    ],
)
def test_numbers_that_are_not_finite(ada: httpx.Client, body: str, number: str) -> None:
    answer = ada.post("/v1/solves", content=body % number, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["errors"]


def test_gamma0_zero_has_no_finite_network(ada: httpx.Client) -> None:
    body = changed("method", {"name": "finite_width"}) | {"network": {"gamma0": 0}}
    answer = ada.post("/v1/solves", json=body)
    assert answer.status_code == 422
    assert "static_ntk" in answer.json()["detail"]


def test_steps_times_points_is_limited(ada: httpx.Client) -> None:
    body = {
        "data": {"dataset": "digits", "classes": [0, 1], "samples": 200},
        "training": {"steps": 100_000},
    }
    answer = ada.post("/v1/solves", json=body)
    assert answer.status_code == 422
    assert "= 20000000 (limit: 2000000)" in answer.json()["detail"]


def test_what_does_not_fit_into_memory_is_refused_with_a_size_that_does(ada: httpx.Client) -> None:
    digits = {"dataset": "digits", "classes": [0, 1], "samples": 350}
    body = {"data": digits, "training": {"steps": 200}, "method": {"tolerance": 1e-3, "replicas": 64}}
    answer = ada.post("/v1/solves", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "would_not_fit")
    detail = answer.json()["detail"]
    limit = ada.get("/v1/capabilities").json()["limits"]["memory_gb"]
    assert f"(limit: {in_gigabytes(1e9 * limit)})" in detail
    points = int(re.search(r"with (\d+) training points", detail)[1])  # type: ignore[index]
    fewer = body | {"data": digits | {"samples": points - points % 2}}
    assert ada.post("/v1/solves", json=fewer).status_code == 202


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[1, 2", b"nonsense"])
def test_what_is_not_json(ada: httpx.Client, body: bytes) -> None:
    answer = ada.post("/v1/solves", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.json()["code"] in ("invalid_json", "invalid_request")


def test_deeply_nested_json_is_no_crash(ada: httpx.Client) -> None:
    body = b'{"data": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    answer = ada.post("/v1/solves", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text


def test_oversized_body_declared_and_undeclared(ada: httpx.Client) -> None:
    big = json.dumps(changed("name", "x" * 300_000)).encode()

    def in_pieces():
        for start in range(0, len(big), 10_000):
            yield big[start : start + 10_000]

    for content in (big, in_pieces()):
        answer = ada.post("/v1/solves", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
        assert answer.json()["code"] == "body_too_large"
        assert "200000" in answer.json()["detail"]


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def bomb() -> bytes:
    """A few kilobytes that unpack to more than the limit."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as member:
        zeros = bytes(2**20)
        for _ in range(600):
            member.write(zeros)
    return buffer.getvalue()


def test_damaged_and_wrong_uploads(ada: httpx.Client) -> None:
    good = npz(x=np.eye(3), y=np.ones(3))
    flipped = bytearray(good)
    flipped[80] ^= 0xFF
    pickled = io.BytesIO()
    np.savez(pickled, x=np.array([{"a": 1}], dtype=object), y=np.ones(1))
    cases = {
        b"": "NPZ",
        b"not a zip": "NPZ",
        good[: len(good) // 2]: "NPZ",
        bytes(flipped): "NPZ",
        pickled.getvalue(): "holds objects",
        b"--form\r\n\r\n" + good + b"\r\n--form--": "not in a form",
        npz(z=np.ones(3)): "x and y",
        npz(x=np.eye(3)): "x and y",
        npz(x=np.eye(3), y=np.ones(3), extra=np.ones(1)): "x and y",
        npz(x=np.eye(3), y=np.ones(2)): "rows",
        npz(x=np.full((2, 2), np.nan), y=np.ones(2)): "finite",
        npz(kernel=np.array(INDEFINITE), y=np.ones(2)): "positive semidefinite",
        npz(x=np.array([["a"]]), y=np.ones(1)): "numbers",
        npz(x=np.eye(2) * 1j, y=np.ones(2)): "numbers",
    }
    before = ada.get("/v1/datasets").json()
    for content, words in cases.items():
        answer = ada.post("/v1/datasets", content=content)
        assert answer.status_code == 422, (words, answer.text)
        assert words in answer.json()["detail"]
    assert ada.get("/v1/datasets").json() == before


def test_zip_bomb_is_refused_unopened() -> None:
    content = bomb()
    assert len(content) < 1_000_000
    with pytest.raises(UploadError, match="unpacks to"):
        read_npz(content)


@pytest.mark.parametrize("path", ["/v1/solves", "/v1/datasets", "/v1/solves/s_1", "/v1/solves/s_1/result"])
@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "missing_key"),
        ("Bearer dmft_foreign", "invalid_key"),
        ("Basic YWRhOng=", "missing_key"),
    ],
)
def test_missing_and_foreign_keys(anonymous: httpx.Client, path: str, header: str | None, code: str) -> None:
    headers = {} if header is None else {"Authorization": header}
    answer = anonymous.get(path, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, code)
    assert answer.headers["www-authenticate"] == "Bearer"


def test_another_users_solve_looks_like_none(
    ada: httpx.Client, bob: httpx.Client, root: httpx.Client
) -> None:
    job = ada.post("/v1/solves", json=SMALL).json()
    paths = [
        ("GET", ""),
        ("POST", "/cancel"),
        ("DELETE", ""),
        ("GET", "/events"),
        ("GET", "/result"),
        ("GET", "/result.npz"),
        ("GET", "/kernels/phi"),
    ]
    for method, suffix in paths:
        theirs = bob.request(method, f"/v1/solves/{job['id']}{suffix}")
        nothing = bob.request(method, f"/v1/solves/s_none{suffix}")
        assert (theirs.status_code, theirs.json()["code"]) == (404, "job_not_found")
        assert nothing.json()["detail"].replace("s_none", "") == theirs.json()["detail"].replace(
            job["id"], ""
        )
    assert root.get(f"/v1/solves/{job['id']}").status_code == 200
    assert ada.get(f"/v1/solves/{job['id']}").json()["status"] == "queued"
    assert bob.get("/v1/solves", params={"owner": "ada"}).status_code == 403
    assert bob.get("/v1/solves", params={"owner": "*"}).status_code == 403
    assert len(root.get("/v1/solves", params={"owner": "*"}).json()["items"]) == 1
    assert len(root.get("/v1/solves", params={"owner": "ada"}).json()["items"]) == 1
    assert len(root.get("/v1/solves", params={"owner": job["owner_id"]}).json()["items"]) == 1
    assert len(ada.get("/v1/solves", params={"owner": "ada"}).json()["items"]) == 1
    assert bob.get("/v1/solves", params={"owner": job["owner_id"]}).status_code == 403


@pytest.mark.parametrize("name", ["admin", "*"])
def test_an_earlier_users_name_gives_no_rights(
    ada: httpx.Client, root: httpx.Client, anonymous: httpx.Client, redis_client: redis.Redis, name: str
) -> None:
    """Earlier versions let a user be called so; their keys are still there."""
    theirs = [client.post("/v1/solves", json=SMALL).json()["id"] for client in (ada, root)]
    redis_client.hset(KEYS, hashlib.sha256(b"old").hexdigest(), f"user:{name}")
    headers = {"Authorization": "Bearer old"}
    for job_id in theirs:
        assert anonymous.get(f"/v1/solves/{job_id}", headers=headers).status_code == 404
        assert anonymous.post(f"/v1/solves/{job_id}/cancel", headers=headers).status_code == 404
    for owner in (None, name, "admin", "*", "ada"):
        params = {"owner": owner} if owner else {}
        answer = anonymous.get("/v1/solves", params=params, headers=headers)
        assert answer.status_code == 403 or answer.json()["items"] == []


def test_another_users_dataset_cannot_be_used(ada: httpx.Client, bob: httpx.Client) -> None:
    dataset = ada.post("/v1/datasets", content=npz(x=np.eye(3), y=np.ones(3))).json()["id"]
    assert bob.get(f"/v1/datasets/{dataset}").status_code == 404
    answer = bob.post("/v1/solves", json=SMALL | {"data": {"dataset_id": dataset}})
    assert answer.status_code == 422
    assert ada.post("/v1/solves", json=SMALL | {"data": {"dataset_id": dataset}}).status_code == 202


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("PUT", "/v1/solves", 405, "method_not_allowed"),
        ("GET", "/v1/solves?limit=0", 422, "invalid_request"),
        ("GET", "/v1/solves?limit=1000", 422, "invalid_request"),
        ("GET", "/v1/solves?cursor=abc", 422, "invalid_request"),
        ("GET", "/v1/solves?status=done", 422, "invalid_request"),
        ("GET", "/v1/solves/s_%00", 404, "job_not_found"),
        ("GET", "/v1/datasets/..%2f..%2fetc", 404, "not_found"),
    ],
)
def test_other_refusals_are_problems_too(
    ada: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    answer = ada.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


def test_queue_limit_answers_429(ada: httpx.Client) -> None:
    for _ in range(50):
        assert ada.post("/v1/solves", json=SMALL).status_code == 202
    answer = ada.post("/v1/solves", json=SMALL)
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_queued")
    assert int(answer.headers["retry-after"]) > 0


def test_store_that_is_away_answers_503(anonymous: httpx.Client, keys: dict[str, str], redis_server) -> None:
    headers = {"Authorization": f"Bearer {keys['ada']}"}
    redis_server.kill()
    try:
        answer = anonymous.get("/v1/solves", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
        assert anonymous.get("/healthz").status_code == 200
        assert anonymous.get("/readyz").status_code == 503
    finally:
        redis_server.stop()
        redis_server.start()
    assert anonymous.get("/v1/solves", headers=headers).status_code == 200
