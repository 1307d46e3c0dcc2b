"""Datasets go when they are told to, not under a solve that needs them, and have limits."""

from __future__ import annotations

import io
from pathlib import Path

import httpx
import numpy as np
import pytest

from jobs.artifacts import Artifacts
from jobs.errors import DatasetQuota
from jobs.settings import Settings

SHA = [f"{number:064x}" for number in range(3)]


def npz(value: float) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, x=np.array([[1.0, value], [0.5, 1.0]]), y=np.array([1.0, -1.0]))
    return stream.getvalue()


def upload(client: httpx.Client, value: float) -> str:
    headers = {"Content-Type": "application/octet-stream"}
    return str(client.post("/v1/datasets", content=npz(value), headers=headers).json()["id"])


def test_delete(ada: httpx.Client, bob: httpx.Client, settings: Settings) -> None:
    dataset = upload(ada, 0.25)
    assert upload(bob, 0.25) == dataset
    folder = settings.artifacts / "datasets" / dataset
    for _ in range(2):
        assert ada.delete(f"/v1/datasets/{dataset}").status_code == 204
    assert ada.get(f"/v1/datasets/{dataset}").status_code == 404
    assert bob.get(f"/v1/datasets/{dataset}").status_code == 200, "another's stays"
    assert ada.delete("/v1/datasets/none").status_code == 404
    assert bob.delete(f"/v1/datasets/{dataset}").status_code == 204
    assert not folder.exists()


def test_a_waiting_solve_keeps_its_dataset(ada: httpx.Client, bob: httpx.Client) -> None:
    dataset = upload(ada, 0.5)
    upload(bob, 0.5)
    request = {"data": {"dataset_id": dataset}, "method": {"name": "static_ntk"}, "training": {"steps": 3}}
    job = ada.post("/v1/solves", json=request).json()["id"]
    refused = ada.delete(f"/v1/datasets/{dataset}")
    assert (refused.status_code, refused.json()["code"]) == (409, "dataset_in_use")
    assert job in refused.json()["detail"]
    assert bob.delete(f"/v1/datasets/{dataset}").status_code == 204, "another's solves are none of bob's"
    ada.post(f"/v1/solves/{job}/cancel")
    assert ada.delete(f"/v1/datasets/{dataset}").status_code == 204


def test_limits(tmp_path: Path) -> None:
    few = Artifacts(tmp_path / "a", max_datasets=2)
    assert few.put_dataset(SHA[0], "u", "data", {})
    assert few.put_dataset(SHA[1], "u", "data", {})
    assert not few.put_dataset(SHA[1], "u", "data", {}), "what is there already counts once"
    with pytest.raises(DatasetQuota, match="limit: 2"):
        few.put_dataset(SHA[2], "u", "data", {})
    assert few.put_dataset(SHA[2], "v", "data", {}), "others have limits of their own"
    assert few.remove_dataset(SHA[0], "u")
    assert few.put_dataset(SHA[2], "u", "data", {})
    small = Artifacts(tmp_path / "b", max_dataset_bytes=10)
    assert small.put_dataset(SHA[0], "u", "1234567", {})
    with pytest.raises(DatasetQuota, match="limit: 10 bytes"):
        small.put_dataset(SHA[1], "u", "1234", {})
    assert not (tmp_path / "b" / "datasets" / SHA[1]).exists()
    assert not any((tmp_path / "b" / "staging").iterdir())
