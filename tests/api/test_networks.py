"""Networks of blocks over HTTP: what is solved, and what is refused where."""

from __future__ import annotations

import io
import json
from typing import Any

import httpx
import numpy as np
import pytest

from dmft_schema.blocks import BLOCKS
from tests.networks import DENSE, READOUT, TANH, data_of, network_of
from tests.problems import DATA
from worker.supervisor import Supervisor

CASES: dict[str, Any] = json.loads((DATA / "networks.json").read_text())["cases"]
SEQUENCES = {"inputs": np.arange(12.0).reshape(2, 3, 2).tolist(), "targets": [1, -1]}
IMAGES = {"inputs": np.arange(32).reshape(2, 4, 4, 1).tolist(), "targets": [1, -1]}
VECTORS = {"inputs": [[1.0, 2.0], [0.5, 1.0]], "targets": [1, -1]}
KERNEL = {"kernel": [[1.0, 0.2], [0.2, 1.0]], "targets": [1, -1]}
CONVOLUTION: dict[str, Any] = {"block": "convolution"}
ATTENTION: dict[str, Any] = {"block": "attention"}


def composed(*layers: Any, **options: Any) -> dict[str, Any]:
    return {"network": {"architecture": "composed", "layers": list(layers)}} | options


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "method",
    [
        {"name": "dmft", "samples": 8192, "replicas": 4, "tolerance": 0.05},
        {"name": "finite_width", "width": 256, "ensemble": 6},
    ],
    ids=lambda method: method["name"],
)
def test_independent_networks_at_all_times(
    ada: httpx.Client, supervisor: Supervisor, case: str, method: dict[str, Any]
) -> None:
    """Dense networks in plain autograd, extrapolated in 1/N: within four joint standard errors."""
    kept = CASES[case]
    body = {
        "data": {"inputs": kept["inputs"], "targets": kept["targets"]},
        "network": {"architecture": "composed", "layers": kept["layers"]},
        "training": {"learning_rate": kept["learning_rate"], "steps": kept["steps"]},
        "method": method,
        "outputs": {"kernels": []},
    }
    answer = ada.post("/v1/solves", json=body)
    assert answer.status_code == 202, answer.text
    supervisor.work()
    result = ada.get(f"/v1/solves/{answer.json()['id']}/result").json()
    error = np.hypot(result["loss_standard_error"], kept["loss_standard_error"])
    assert (np.abs(np.subtract(result["loss"], kept["loss"]))[1:] < 4 * error[1:]).all()


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    # what is no network
    (SEQUENCES, composed(CONVOLUTION | {"size": 0}, READOUT), "network.layers.0.size", "1"),
    (SEQUENCES, composed(DENSE, {"block": "dens"}, READOUT), "network.layers.1", "convolution"),
    (SEQUENCES, composed(DENSE, {"block": "residual", "branch": [TANH | {"name": "x"}]}, READOUT),
     "network.layers.1.branch.0.name", "tanh"),
    (SEQUENCES, composed(DENSE, TANH), "network.layers.1", "readout"),
    (SEQUENCES, {"network": {"architecture": "composed"}}, "network.layers", "required"),
    (SEQUENCES, {"network": {"architecture": "unet"}}, "network.architecture", "'composed'"),
    (SEQUENCES, {"network": {"architecture": "recurrent", "size": 3}}, "network.size", "xtra"),
    (SEQUENCES, {"network": {"architecture": "convolutional", "weight_scales": [1.0]}}, "network",
     "4 numbers"),
    # shapes that it cannot take
    (VECTORS, composed(CONVOLUTION, READOUT), "network.layers.0", "[H, W, C]; it got [2]"),
    (KERNEL, composed(CONVOLUTION, READOUT), "network.layers.0", "[H, W, C]; it got [D]"),
    (IMAGES, composed(DENSE, {"block": "recurrence"}, READOUT), "network.layers.1", "[4, 4, N]"),
    (VECTORS, composed(DENSE, ATTENTION, READOUT), "network.layers.1", "[N]"),
    (SEQUENCES, composed(TANH, READOUT), "network.layers.0", "[3, 2]"),
    (SEQUENCES, composed(DENSE, {"block": "residual", "branch": [{"block": "pool", "size": 3}]}, READOUT),
     "network.layers.1", "[1, N] of [3, N]"),
    (IMAGES, {"network": {"architecture": "mlp"}}, "network", "flatten them to [16]"),
    (VECTORS, {"network": {"architecture": "transformer"}}, "network", "shape [2]"),
    ({"dataset": "digits"}, {"network": {"architecture": "convolutional"}}, "network", "shape [64]"),
    # data of no shape
    (SEQUENCES | {"test_inputs": IMAGES["inputs"]}, composed(DENSE, READOUT), "data", "[4, 4, 1]"),
    (SEQUENCES | {"inputs": [[[1.0], [2.0]], [[1.0]]]}, composed(DENSE, READOUT), "data.inputs", "[1]"),
    # options that it has no place for
    (SEQUENCES, composed(DENSE, ATTENTION | {"head_size": 3}, READOUT,
     method={"name": "finite_width", "width": 100}), "request", "use 99"),
    (SEQUENCES, composed(DENSE, TANH, READOUT, outputs={"responses": True}), "request", "outputs.responses"),
    (SEQUENCES, composed(DENSE, TANH, READOUT, training={"backward_rule": "feedback_alignment"}), "request",
     "training.backward_rule"),
    *((SEQUENCES, composed(DENSE, READOUT, method={"name": name}), "request", "finite_width")
      for name in ("alternating", "linear", "perturbation")),
]  # fmt: skip


@pytest.mark.parametrize(("data", "sections", "place", "words"), REFUSED)
def test_refusals_name_the_block_and_the_shapes(
    ada: httpx.Client, data: dict[str, Any], sections: dict[str, Any], place: str, words: str
) -> None:
    answer = ada.post("/v1/solves", json={"data": data} | sections)
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    places = [".".join(map(str, error["loc"])) or "request" for error in problem["errors"]]
    assert place in places, problem
    assert words in problem["detail"], problem["detail"]
    assert ada.get("/v1/solves").json()["items"] == []


def uploaded(ada: httpx.Client, **arrays: Any) -> httpx.Response:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return ada.post("/v1/datasets", content=buffer.getvalue())


def test_uploaded_images_are_those_of_the_request(ada: httpx.Client, supervisor: Supervisor) -> None:
    """uint8 by NPZ or by JSON: the same numbers come out."""
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 2), dtype=np.uint8)
    targets = np.array([1.0, -1.0, 1.0])
    made = uploaded(ada, x=images, y=targets, x_test=images[:2])
    assert made.status_code == 201, made.text
    assert made.json()["shape"] == [4, 4, 2]
    options = {
        "network": {"architecture": "convolutional", "depth": 2},
        "training": {"steps": 4, "learning_rate": 1e-6},
        "method": {"name": "finite_width", "width": 16, "ensemble": 2},
    }
    inline = {"inputs": images.tolist(), "targets": targets.tolist(), "test_inputs": images[:2].tolist()}
    jobs = [
        ada.post("/v1/solves", json={"data": data} | options).json()
        for data in ({"dataset_id": made.json()["id"]}, inline)
    ]
    supervisor.work()
    first, second = (ada.get(f"/v1/solves/{job['id']}/result").json() for job in jobs)
    assert first["predictions"] == second["predictions"]
    assert first["predictions"][-1] != first["predictions"][0]
    assert jobs[1]["request"]["data"]["shape"] == [4, 4, 2]


def test_networks_refuse_uploads_of_other_shapes(ada: httpx.Client) -> None:
    vectors = uploaded(ada, x=np.eye(2), y=np.ones(2)).json()["id"]
    images = uploaded(ada, x=np.ones((2, 3, 3, 1)), y=np.ones(2)).json()["id"]
    for dataset, network, place, words in (
        (vectors, composed(CONVOLUTION, READOUT)["network"], ["network", "layers", 0], "it got [2]"),
        (images, {"architecture": "mlp"}, ["network"], "[3, 3, 1]: flatten them to [9]"),
    ):
        answer = ada.post("/v1/solves", json={"data": {"dataset_id": dataset}, "network": network})
        assert answer.status_code == 422, answer.text
        (error,) = answer.json()["errors"]
        assert error["loc"] == place
        assert words in error["msg"]


def test_digits_come_as_images_when_asked(ada: httpx.Client, supervisor: Supervisor) -> None:
    body = {
        "data": {"dataset": "digits", "samples": 4, "images": True},
        "network": {"architecture": "convolutional", "depth": 1, "pool": 2},
        "training": {"steps": 3},
        "method": {"name": "finite_width", "width": 8, "ensemble": 2},
    }
    job = ada.post("/v1/solves", json=body).json()
    supervisor.work()
    assert ada.get(f"/v1/solves/{job['id']}").json()["status"] == "succeeded"


@pytest.mark.parametrize("name", ["attention", "convolution of images"])
def test_a_network_that_does_not_fit_is_refused_with_one_that_does(ada: httpx.Client, name: str) -> None:
    large = {"data": data_of(name), "network": network_of(name), "method": {"name": "dmft", "samples": 10**6}}
    answer = ada.post("/v1/solves", json=large)
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "would_not_fit"
    assert "It would fit with" in answer.json()["detail"]


def test_capabilities_list_every_block_with_its_options(ada: httpx.Client) -> None:
    listed = ada.get("/v1/capabilities").json()
    assert set(listed["blocks"]) == set(BLOCKS)
    assert listed["blocks"]["convolution"]["padding"]["enum"] == ["same", "valid", "circular"]
    assert listed["blocks"]["attention"]["head_size"]["default"] == 2
    for name, model in BLOCKS.items():
        assert set(listed["blocks"][name]) == set(model.model_fields) - {"block"}
    assert set(listed["networks"]) == set(listed["architectures"])


def test_the_openapi_document_has_every_block(ada: httpx.Client) -> None:
    schemas = ada.get("/openapi.json").json()["components"]["schemas"]
    layers = schemas["ComposedNetwork"]["properties"]["layers"]["items"]
    assert set(layers["discriminator"]["mapping"]) == set(BLOCKS)
    for reference in layers["discriminator"]["mapping"].values():
        assert reference.removeprefix("#/components/schemas/") in schemas
