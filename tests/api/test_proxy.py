"""Behind a proxy with a prefix, and for pages of other origins."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from jobs.settings import Settings
from tests.serving import SMALL, running_api


@pytest.fixture(scope="module")
def prefixed(api_settings: Settings) -> Iterator[str]:
    with running_api(api_settings.model_copy(update={"root_path": "/lab/dmft"})) as url:
        yield url


@pytest.mark.parametrize("left_on", ["", "/lab/dmft"])
def test_links_pages_and_redirects_keep_the_prefix(prefixed: str, left_on: str, keys: dict[str, str]) -> None:
    """Whether the proxy takes it off or not."""
    headers = {"Authorization": f"Bearer {keys['ada']}"}
    with httpx.Client(base_url=prefixed + left_on, headers=headers) as client:
        created = client.post("/v1/solves", json=SMALL)
        job = created.json()
        assert created.headers["location"] == job["links"]["self"] == f"/lab/dmft/v1/solves/{job['id']}"
        assert all(link.startswith("/lab/dmft/v1/") for link in job["links"].values())
        listed = client.get("/v1/solves").json()["items"][0]
        assert listed["links"] == client.get(f"/v1/solves/{job['id']}").json()["links"] == job["links"]
        moved = client.get("/v1/solves/")
        assert moved.is_redirect
        assert httpx.URL(moved.headers["location"]).path == "/lab/dmft/v1/solves"
        assert client.get("/openapi.json").json()["servers"] == [{"url": "/lab/dmft"}]
        docs = client.get("/docs").text
        for asset in re.findall(r'(?:src|href)="(/[^"]+)"', docs):
            assert asset.startswith("/lab/dmft/")
            assert client.get(asset.removeprefix("/lab/dmft")).status_code == 200
        page = client.get("/").text
        assert not re.findall(r'(?:href|src)="/|fetch\("/', page)


@pytest.mark.parametrize("path", ["dmft", "/a b", "/a//b", "/a?b", "//"])
def test_a_prefix_that_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="root_path"):
        Settings(root_path=path)


def test_pages_of_named_origins_may_call(api_settings: Settings, keys: dict[str, str]) -> None:
    named = api_settings.model_copy(update={"cors_origins": "https://a.example, https://b.example"})
    with running_api(named) as url, httpx.Client(base_url=url) as client:
        asks = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,prefer",
        }
        preflight = client.options("/v1/solves", headers={"Origin": "https://b.example", **asks})
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://b.example"
        assert (
            client.options("/v1/solves", headers={"Origin": "https://c.example", **asks}).status_code == 400
        )
        refused = client.get("/v1/solves", headers={"Origin": "https://a.example"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://a.example"
        assert "x-request-id" in refused.headers["access-control-expose-headers"].lower()


def test_without_the_setting_no_other_origin_may(anonymous: httpx.Client) -> None:
    answer = anonymous.get("/healthz", headers={"Origin": "https://a.example"})
    assert "access-control-allow-origin" not in answer.headers
