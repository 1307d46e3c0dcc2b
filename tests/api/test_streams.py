"""Event streams and waiting requests: many at a time, ended when they should be, or refused before."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import httpx
import pytest
import redis

from jobs.keys import KeyStore
from jobs.settings import Settings
from jobs.store import JobStore
from tests import waiting
from tests.serving import SMALL, running_api

MANY = 130
"""More than the hundred connections that a client of Redis keeps by default."""


def authorised(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def at_once(url: str, key: str, work: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    limits = httpx.Limits(max_connections=None)
    headers = authorised(key)
    async with httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=60) as client:
        await work(client)


def test_more_streams_than_a_pool_has_connections(url: str, keys: dict[str, str]) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        job = (await client.post("/v1/solves", json=SMALL)).json()["id"]
        begun = asyncio.Semaphore(0)

        async def follow() -> str:
            async with client.stream("GET", f"/v1/solves/{job}/events") as answer:
                assert answer.status_code == 200
                lines: list[str] = []
                async for line in answer.aiter_lines():
                    lines.append(line)
                    if len(lines) == 1:
                        begun.release()
                return "\n".join(lines)

        streams = [asyncio.create_task(follow()) for _ in range(MANY)]
        for _ in streams:
            await begun.acquire()
        await client.post(f"/v1/solves/{job}/cancel")
        for text in await asyncio.gather(*streams):
            assert "cancelled" in text

    asyncio.run(at_once(url, keys["ada"], work))


def test_more_waiting_submits_than_a_pool_has_connections(
    api_settings: Settings, keys: dict[str, str], redis_client: redis.Redis
) -> None:
    patient = api_settings.model_copy(update={"max_queued_per_user": 1000, "max_wait_seconds": 2.0})

    async def work(client: httpx.AsyncClient) -> None:
        headers = {"Prefer": "wait=2"}
        posts = [client.post("/v1/solves", json=SMALL, headers=headers) for _ in range(MANY)]
        answers = await asyncio.gather(*posts)
        assert {answer.status_code for answer in answers} == {202}
        assert {answer.headers.get("preference-applied") for answer in answers} == {"wait=2"}
        assert len({answer.json()["id"] for answer in answers}) == MANY

    with running_api(patient) as url:
        asyncio.run(at_once(url, keys["ada"], work))


def test_without_a_place_a_stream_is_refused_and_a_submit_accepted(
    api_settings: Settings, keys: dict[str, str], store: JobStore
) -> None:
    narrow = api_settings.model_copy(update={"max_streams": 2})
    with running_api(narrow) as url, httpx.Client(base_url=url, headers=authorised(keys["ada"])) as client:
        job = client.post("/v1/solves", json=SMALL).json()["id"]
        events = f"/v1/solves/{job}/events"
        with client.stream("GET", events) as one, client.stream("GET", events) as two:
            assert one.status_code == two.status_code == 200
            refused = client.get(events)
            assert (refused.status_code, refused.json()["code"]) == (503, "too_many_streams")
            assert refused.headers["content-type"] == "application/problem+json"
            assert int(refused.headers["retry-after"]) > 0
            waiting_ = client.post("/v1/solves", json=SMALL, headers={"Prefer": "wait=5"})
            assert (waiting_.status_code, waiting_.json()["status"]) == (202, "queued")
            assert "preference-applied" not in waiting_.headers
        client.post(f"/v1/solves/{job}/cancel")
        # Places are given back, those of readers that went away too.
        waiting.until(lambda: client.get(events).status_code == 200)
        for _ in range(5):
            assert client.get(events).status_code == 200
            assert client.head(events).status_code == 200


def test_a_revoked_key_ends_its_stream(url: str, keys: dict[str, str], redis_client: redis.Redis) -> None:
    headers = authorised(keys["ada"])
    with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
        job = client.post("/v1/solves", json=SMALL).json()["id"]
        with client.stream("GET", f"/v1/solves/{job}/events") as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("id:")
            store = KeyStore(redis_client)
            store.revoke(next(info.id for info in store.list() if info.user.name == "ada"))
            for number in range(200):
                redis_client.xadd(f"dmft:events:{job}", {"kind": "progress", "data": f'{{"step": {number}}}'})
            assert sum("progress" in line for line in lines) == 0
        assert client.get("/v1/solves").status_code == 401


def test_a_deleted_job_ends_its_stream(ada: httpx.Client, redis_client: redis.Redis) -> None:
    job = ada.post("/v1/solves", json=SMALL).json()["id"]
    with ada.stream("GET", f"/v1/solves/{job}/events") as answer:
        lines = answer.iter_lines()
        next(lines)
        redis_client.delete(f"dmft:job:{job}", f"dmft:events:{job}")
        assert not [line for line in lines if line.startswith("event:") and "succeeded" in line]


@pytest.mark.parametrize(
    "last",
    ["18446744073709551616", "0-18446744073709551616", "9" * 40, "1-2-3", "-1", "1 2", "٣", "$", "+", "1-"],
)
def test_event_ids_beyond_what_streams_have_are_refused_before_the_stream(
    ada: httpx.Client, last: str
) -> None:
    job = ada.post("/v1/solves", json=SMALL).json()["id"]
    headers = {"Last-Event-ID": last.encode()}
    answer = ada.get(f"/v1/solves/{job}/events", headers=headers)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["header", "Last-Event-ID"])


@pytest.mark.parametrize(
    "last", ["0", "0-0", "18446744073709551615", "18446744073709551615-18446744073709551615"]
)
def test_event_ids_that_streams_may_have(ada: httpx.Client, last: str) -> None:
    job = ada.post("/v1/solves", json=SMALL).json()["id"]
    ada.post(f"/v1/solves/{job}/cancel")
    assert ada.get(f"/v1/solves/{job}/events", headers={"Last-Event-ID": last}).status_code == 200


@pytest.mark.parametrize("prefer", ["Wait=1", "WAIT=1", 'wait="1"', "respond-async, wait=1", "wait = 1"])
def test_preferences_in_their_spellings(ada: httpx.Client, prefer: str) -> None:
    answer = ada.post("/v1/solves", json=SMALL, headers={"Prefer": prefer})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=1")


@pytest.mark.parametrize("prefer", ["wait", "wait=", "wait=x", "await=1", "nowait=1", "return=minimal"])
def test_other_preferences_are_ignored(ada: httpx.Client, prefer: str) -> None:
    answer = ada.post("/v1/solves", json=SMALL, headers={"Prefer": prefer})
    assert answer.status_code == 202
    assert "preference-applied" not in answer.headers


def test_a_closing_server_answers_whom_it_keeps_waiting(api_settings: Settings, keys: dict[str, str]) -> None:
    """With the solve, not with an error: it has been accepted. Streams end whole."""
    answers: list[httpx.Response] = []
    with running_api(api_settings.model_copy(update={"max_wait_seconds": 60.0})) as url:
        client = httpx.Client(base_url=url, headers=authorised(keys["ada"]), timeout=60)
        job = client.post("/v1/solves", json=SMALL).json()["id"]
        events = threading.Event()

        def submit() -> None:
            answers.append(client.post("/v1/solves", json=SMALL, headers={"Prefer": "wait=60"}))

        def follow() -> None:
            with client.stream("GET", f"/v1/solves/{job}/events") as answer:
                for _ in answer.iter_lines():
                    events.set()
                answers.append(answer)

        threads = [threading.Thread(target=work) for work in (submit, follow)]
        for thread in threads:
            thread.start()
        assert events.wait(30)
        waiting.until(lambda: len(client.get("/v1/solves").json()["items"]) == 2)
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200, 202]
    client.close()
