"""A solve answered from another's files: its results are its own in every byte that names somebody."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmft_client import Client, Result
from jobs import own_results
from jobs.own_results import Labels
from tests.serving import SMALL
from worker.supervisor import Supervisor

FIRST = {"name": "mine-name", "tags": ["mine-tag", 'a,"name":'], "priority": 3}
SECOND = {"name": 'other "name"', "tags": ["other-tag"], "priority": -2}


@pytest.fixture
def both(ada: httpx.Client, supervisor: Supervisor) -> tuple[str, str]:
    """A solve, and one that was answered from its files."""
    first = ada.post("/v1/solves", json=SMALL | FIRST).json()
    supervisor.work()
    second = ada.post("/v1/solves", json=SMALL | SECOND).json()
    assert second["cached"]
    return first["id"], second["id"]


def labels_of(content: bytes) -> dict[str, Any]:
    manifest = Result.from_bytes(content).manifest
    request = {name: manifest["request"][name] for name in ("name", "tags", "priority", "reuse")}
    return {"solve_id": manifest["solve_id"], **request}


def test_every_file_is_the_solves_own(ada: httpx.Client, both: tuple[str, str]) -> None:
    for job, asked, other in ((both[0], FIRST, both[1]), (both[1], SECOND, both[0])):
        document = ada.get(f"/v1/solves/{job}/result")
        archive = ada.get(f"/v1/solves/{job}/result.npz")
        expected = {"solve_id": job, **asked, "reuse": True}
        assert labels_of(archive.content) == expected
        manifest = document.json()["manifest"]
        assert manifest["solve_id"] == job
        assert {name: manifest["request"][name] for name in asked} == asked
        named = b"other" if asked is FIRST else b"mine"
        for answer in (document, archive):
            assert answer.headers["etag"].startswith(f'"{job}.')
            everything = answer.content + repr(answer.headers).encode()
            assert other.encode() not in everything
            assert named not in everything


def test_arrays_are_those_of_the_first_and_checksums_hold(ada: httpx.Client, both: tuple[str, str]) -> None:
    one, two = (ada.get(f"/v1/solves/{job}/result.npz").content for job in both)
    assert zipfile.ZipFile(io.BytesIO(two)).testzip() is None
    ours, theirs = Result.from_bytes(two), Result.from_bytes(one)
    assert ours.arrays.keys() == theirs.arrays.keys()
    for name, array in ours.arrays.items():
        np.testing.assert_array_equal(array, theirs.arrays[name])
        checksum = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
        assert ours.manifest["arrays"][name]["sha256"] == checksum
    first, second = (ada.get(f"/v1/solves/{job}/result").json() for job in both)
    first.pop("manifest")
    second.pop("manifest")
    assert first == second


@pytest.mark.parametrize("name", ["result", "result.npz"])
def test_ranges_and_validators(ada: httpx.Client, both: tuple[str, str], name: str) -> None:
    path = f"/v1/solves/{both[1]}/{name}"
    whole = ada.get(path)
    size, etag = len(whole.content), whole.headers["etag"]
    assert ada.get(path).content == whole.content
    head = ada.head(path)
    assert (head.headers["content-length"], head.headers["etag"]) == (str(size), etag)
    pieces = [ada.get(path, headers={"Range": f"bytes={at}-{at + 499}"}) for at in range(0, size, 500)]
    assert {piece.status_code for piece in pieces} == {206}
    assert b"".join(piece.content for piece in pieces) == whole.content
    last = ada.get(path, headers={"Range": "bytes=-40", "If-Range": etag})
    assert (last.status_code, last.content) == (206, whole.content[-40:])
    several = ada.get(path, headers={"Range": f"bytes=0-9,{size - 10}-{size - 1}"})
    assert several.status_code == 206
    assert whole.content[:10] in several.content
    assert whole.content[-10:] in several.content
    assert ada.get(path, headers={"Range": "bytes=0-9", "If-Range": '"x"'}).content == whole.content
    assert ada.get(path, headers={"If-None-Match": etag}).status_code == 304
    beyond = ada.get(path, headers={"Range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    firsts = ada.get(f"/v1/solves/{both[0]}/{name}").headers["etag"]
    assert ada.get(path, headers={"If-None-Match": firsts}).status_code == 200


def test_it_outlives_the_first(ada: httpx.Client, both: tuple[str, str]) -> None:
    path = f"/v1/solves/{both[1]}/result.npz"
    before = ada.get(path)
    assert ada.delete(f"/v1/solves/{both[0]}").status_code == 204
    after = ada.get(path)
    assert (after.content, after.headers["etag"]) == (before.content, before.headers["etag"])


def test_the_client_takes_it(url: str, keys: dict[str, str], supervisor: Supervisor) -> None:
    with Client(url, keys["ada"]) as client:
        options: dict[str, Any] = {"kernel": [[1.0, 0.1], [0.1, 1.0]], "targets": [1.0, -1.0]}
        options |= {"method": "static_ntk", "steps": 4}
        first = client.solve(**options, name="first")
        supervisor.work()
        second = client.solve(**options, name="second", tags=["t"])
        assert second.job().cached
        np.testing.assert_array_equal(second.result().loss, first.result().loss)
        assert second.result().manifest["request"]["name"] == "second"
        assert second.result().manifest["solve_id"] == second.id


texts = st.text(max_size=30) | st.just('"},"name":1,"tags":[],"priority":0,"reuse":true}}}')
labels = st.builds(
    Labels, st.text("abc_", min_size=1), st.none() | texts, st.lists(texts, max_size=4), st.integers(-9, 9)
)


def stored(folder: Path, whose: Labels, layout: str) -> None:
    """Files as this and earlier versions wrote them, or another might."""
    request = {"data": {"kernel": [[1.0]]}, "method": {"name": "dmft"}, **whose.request}
    manifest: dict[str, Any] = {"citation": "é", "request": request}
    if layout == "now":
        manifest["solve_id"] = whose.solve_id
    if layout == "other order":
        manifest = {"request": request, "citation": "x"}
    about = {"complete": True, "summary": {}, "diagnostics": {}, "manifest": manifest}
    text = json.dumps({"times": [0.0, 1.0], **about}, separators=(",", ":"), ensure_ascii=False)
    (folder / "result.json").write_text(text)
    embedded = np.frombuffer(json.dumps(about, separators=(",", ":")).encode(), dtype=np.uint8)
    np.savez(folder / "result.npz", loss=np.arange(5.0), document=embedded)


@settings(max_examples=60, deadline=None)
@given(whose=labels, own=labels, layout=st.sampled_from(["now", "earlier", "other order"]))
def test_any_labels_over_any_labels(
    tmp_path_factory: pytest.TempPathFactory, whose: Labels, own: Labels, layout: str
) -> None:
    folder = tmp_path_factory.mktemp("stored")
    stored(folder, whose, layout)
    with own_results.document(folder / "result.json", own) as content:
        text = content.read()
        assert len(text) == content.size
    found = json.loads(text)
    assert found["times"] == [0.0, 1.0]
    with own_results.archive(folder / "result.npz", own) as content:
        arrays = np.load(io.BytesIO(content.read()))
    np.testing.assert_array_equal(arrays["loss"], np.arange(5.0))
    for manifest in (found["manifest"], json.loads(arrays["document"].tobytes())["manifest"]):
        assert manifest["request"] == {"data": {"kernel": [[1.0]]}, "method": {"name": "dmft"}} | own.request
        assert manifest["solve_id"] == own.solve_id
        assert manifest["citation"] in ("é", "x")
