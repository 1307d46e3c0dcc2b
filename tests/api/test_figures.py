"""Pictures over HTTP: drawn as the client draws them, cached, refused in words, and nobody else's."""

from __future__ import annotations

import io

import httpx
import pytest
from PIL import Image

from dmft_client import Result
from dmft_figures import FORMATS, KINDS, Options, render
from tests.serving import SMALL
from worker.supervisor import Supervisor

WITH_KERNELS = SMALL | {
    "method": {"name": "dmft", "samples": 256, "replicas": 2, "tolerance": 0.1},
    "network": {"depth": 2, "activation": "tanh"},
    "outputs": {"kernels": ["phi", "g", "ntk"], "kernel_times": [0, -1], "field_times": [0, -1]},
}


@pytest.fixture
def solve(ada: httpx.Client, supervisor: Supervisor) -> str:
    job: str = ada.post("/v1/solves", json=WITH_KERNELS).json()["id"]
    supervisor.work()
    assert ada.get(f"/v1/solves/{job}").json()["status"] == "succeeded"
    return job


def test_every_kind_and_format(ada: httpx.Client, solve: str) -> None:
    result = Result.from_bytes(ada.get(f"/v1/solves/{solve}/result.npz").content)
    small = {"width": 3, "height": 3, "dpi": 60, "theme": "dark"}
    for kind in KINDS:
        answer = ada.get(f"/v1/solves/{solve}/figures/{kind}.png", params=small)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), answer.text
        assert Image.open(io.BytesIO(answer.content)).size == (180, 180)
        assert answer.content == render(kind, {solve: result.arrays}, "png", Options(**small))
    for format, media_type in FORMATS.items():
        answer = ada.get(f"/v1/solves/{solve}/figures/loss.{format}", params={"layer": 1})
        assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)


def test_a_picture_that_is_known_is_not_drawn_again(ada: httpx.Client, solve: str) -> None:
    url = f"/v1/solves/{solve}/figures/loss.svg"
    etag = ada.get(url).headers["etag"]
    assert ada.get(url, headers={"If-None-Match": etag}).status_code == 304
    assert ada.get(url, headers={"If-None-Match": f'"x", W/{etag}'}).status_code == 304
    assert ada.get(url, params={"scale": "linear"}, headers={"If-None-Match": etag}).status_code == 200


@pytest.mark.parametrize(
    ("what", "params", "status", "code", "said"),
    [
        ("loss.gif", {}, 422, "invalid_request", "path.format"),
        ("los.png", {}, 422, "invalid_request", "path.kind"),
        ("loss.png", {"width": 100}, 422, "invalid_request", "query.width"),
        ("loss.png", {"widht": 5}, 422, "invalid_request", "query.widht"),
        ("kernels.png", {"layer": 9}, 404, "nothing_to_draw", "layer 9"),
        ("kernels.png", {"t": 9}, 404, "nothing_to_draw", "outside"),
    ],
)
def test_what_cannot_be_drawn(
    ada: httpx.Client, solve: str, what: str, params: dict[str, int], status: int, code: str, said: str
) -> None:
    answer = ada.get(f"/v1/solves/{solve}/figures/{what}", params=params)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert said in answer.json()["detail"]


def test_pictures_are_their_owners(ada: httpx.Client, bob: httpx.Client, solve: str) -> None:
    assert bob.get(f"/v1/solves/{solve}/figures/loss.png").status_code == 404
    waiting = ada.post("/v1/solves", json=SMALL).json()["id"]
    assert ada.get(f"/v1/solves/{waiting}/figures/loss.png").json()["code"] == "job_not_finished"
