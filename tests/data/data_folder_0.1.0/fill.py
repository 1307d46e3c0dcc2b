"""Filled the data folder in folder.tar.gz.

Run against a server of version 0.1.0 (commit 122015a), started with DMFT_RETENTION_DAYS=3000 and then killed
while a solve ran and another waited:

    python fill.py URL ADMIN_KEY ADAS_KEY BOBS_KEY ABOUT.json
"""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np

KERNEL = {"kernel": [[1.0, 0.2], [0.2, 1.0]], "targets": [1.0, -1.0]}
BASE: dict[str, Any] = {
    "data": KERNEL,
    "network": {"depth": 2, "activation": "tanh"},
    "training": {"steps": 5, "learning_rate": 0.1},
}
DMFT = {"name": "dmft", "samples": 256, "replicas": 2, "tolerance": 0.1}
LAZY = {"name": "static_ntk"}
SLOW = BASE | {
    "method": {"name": "finite_width", "width": 100, "ensemble": 2},
    "training": {"steps": 20000, "learning_rate": 0.01},
    "reuse": False,
    "outputs": {"kernels": []},
}


class Caller:
    """One user."""

    def __init__(self, url: str, key: str) -> None:
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60)

    def get(self, solve_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"/v1/solves/{solve_id}").json()
        return found

    def submit(self, request: dict[str, Any], **headers: str) -> str:
        solve_id: str = self.http.post("/v1/solves", json=request, headers=headers).json()["id"]
        return solve_id

    def until(self, solve_id: str, *statuses: str, step: int = 0) -> dict[str, Any]:
        while (job := self.get(solve_id))["status"] not in statuses or job["progress"]["step"] < step:
            time.sleep(0.1)
        return job

    def solved(self, request: dict[str, Any]) -> dict[str, Any]:
        return self.until(self.submit(request), "succeeded", "failed", "cancelled")


def main(url: str, admin_key: str, adas_key: str, bobs_key: str, about: str) -> None:
    ada, bob = Caller(url, adas_key), Caller(url, bobs_key)
    kernels = {"kernels": ["phi", "g", "ntk"], "kernel_times": [0, -1]}
    found = {
        "dmft": ada.solved(BASE | {"method": DMFT, "name": "first", "tags": ["a", "b"], "outputs": kernels}),
        "static": ada.solved(BASE | {"method": LAZY, "tags": ["a"]}),
        "diverged": ada.solved(BASE | {"method": DMFT, "training": {"steps": 60, "learning_rate": 80.0}}),
        "cached": bob.solved(BASE | {"method": LAZY, "name": "bobs"}),
    }
    upload = io.BytesIO()
    np.savez(upload, x=np.eye(3), y=np.array([1.0, -1.0, 1.0]))
    dataset = ada.http.post("/v1/datasets", content=upload.getvalue()).json()["id"]
    found["dataset"] = ada.solved({"data": {"dataset_id": dataset}, "method": LAZY, "training": {"steps": 5}})
    slow = ada.submit(SLOW)
    ada.until(slow, "running", step=1)
    ada.http.post(f"/v1/solves/{slow}/cancel")
    found["cancelled"] = ada.until(slow, "cancelled")
    ids = {name: job["id"] for name, job in found.items()}
    ids["running"] = ada.submit(
        SLOW | {"training": {"steps": 2000, "learning_rate": 0.01}, "name": "running"}
    )
    ada.until(ids["running"], "running")
    ids["queued"] = bob.submit(BASE | {"method": LAZY, "training": {"steps": 7}, "name": "queued"})
    idempotent = BASE | {"method": LAZY, "training": {"steps": 8}}
    ids["idempotent"] = ada.submit(idempotent, **{"Idempotency-Key": "idem-1"})
    result = ada.http.get(f"/v1/solves/{ids['dmft']}/result").json()
    Path(about).write_text(
        json.dumps(
            {
                "keys": {"admin": admin_key, "ada": adas_key, "bob": bobs_key},
                "dataset": dataset,
                "ids": ids,
                "status": {name: job["status"] for name, job in found.items()},
                "final_loss": result["loss"][-1],
                "idempotent_request": idempotent,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
