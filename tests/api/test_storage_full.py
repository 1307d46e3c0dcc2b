"""A job store that has no room: said so, and reads go on."""

from __future__ import annotations

import httpx
import redis

from tests.serving import SMALL


def test_a_redis_without_memory_is_said_to_be_full(ada: httpx.Client, redis_client: redis.Redis) -> None:
    accepted = ada.post("/v1/solves", json=SMALL).json()
    redis_client.config_set("maxmemory", 1)
    try:
        refused = ada.post("/v1/solves", json=SMALL)
        assert (refused.status_code, refused.json()["code"]) == (507, "storage_full"), refused.text
        assert int(refused.headers["Retry-After"]) > 0
        assert ada.get(f"/v1/solves/{accepted['id']}").json()["status"] == "queued"
    finally:
        redis_client.config_set("maxmemory", 0)
    assert ada.post("/v1/solves", json=SMALL).status_code == 202
