"""Clients find the servers that run, and the key of each for that one alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dmft_client import Client, ConnectionFailed, discovery
from tests.e2e.conftest import start, stop


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def ended() -> int:
    """The id of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def leave(path: Path, url: str, key: str, **more: Any) -> Path:
    """What a server leaves."""
    key_file = path.parent / f"{key}.key"
    path.parent.mkdir(parents=True, exist_ok=True)
    key_file.write_text(key + "\n")
    path.write_text(json.dumps({"url": url, "key_file": str(key_file), "pid": os.getpid(), **more}))
    return path


def test_in_the_data_folder_in_the_register_and_where_earlier_servers_left_it(
    url: str, keys: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (
        tmp_path / ".dmft" / "server.json",
        discovery.register_file(tmp_path / "data"),
        discovery.register().parent / "server.json",
    ):
        leave(place, url, keys["ada"])
        with Client() as client:
            assert list(client.list()) == []
        place.unlink()
    monkeypatch.setenv("DMFT_URL", url)
    monkeypatch.setenv("DMFT_API_KEY", keys["bob"])
    with Client() as client:
        assert list(client.list()) == []


def test_the_local_key_goes_to_the_local_server_only(tmp_path: Path) -> None:
    leave(tmp_path / ".dmft" / "server.json", "http://127.0.0.1:8000", "one")
    leave(discovery.register_file(tmp_path / "other"), "http://127.0.0.1:8001/", "two")
    assert discovery.find(None, None).api_key == "one"
    assert discovery.find("http://127.0.0.1:8000/", None).api_key == "one"
    assert discovery.find("http://127.0.0.1:8001", None).api_key == "two"
    assert discovery.find("http://elsewhere:8000", None).api_key is None


def test_of_those_that_ended_nothing_is_taken(ended: int, listening: str, tmp_path: Path) -> None:
    """Neither the address nor the key, for which something else may listen there now."""
    gone = leave(discovery.register_file(tmp_path / "gone"), listening, "gone", pid=ended)
    leave(tmp_path / ".dmft" / "server.json", listening, "gone", pid=ended)
    with pytest.raises(ConnectionFailed, match="dmft serve"):
        discovery.find(None, None)
    assert discovery.find(listening, None).api_key is None
    alive = leave(discovery.register_file(tmp_path / "alive"), listening, "alive")
    assert discovery.find(None, None) == discovery.Address(listening, "alive")
    discovery.forget_ended()
    assert (gone.exists(), alive.exists()) == (False, True)


def test_one_that_answers_is_preferred_to_one_that_does_not(listening: str, tmp_path: Path) -> None:
    silent = "http://127.0.0.1:9"
    leave(tmp_path / ".dmft" / "server.json", silent, "silent")
    assert discovery.find(None, None).url == silent
    leave(discovery.register_file(tmp_path / "d"), listening, "k")
    assert discovery.find(None, None) == discovery.Address(listening, "k")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"url": 1}', '{"url": "u", "key_file": 3}', '{"url": "x", "key_file": "y"}'],
)
def test_what_is_broken_is_passed_over(text: str, listening: str, tmp_path: Path) -> None:
    broken = tmp_path / ".dmft" / "server.json"
    broken.parent.mkdir()
    broken.write_text(text)
    leave(discovery.register_file(tmp_path / "d"), listening, "k")
    assert discovery.find(None, None) == discovery.Address(listening, "k")


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://x", "http://", "http://[", "http://x:y", "nonsense"]
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ConnectionFailed, match=r"http://127|not a url"):
        Client(url, "key")


def test_the_local_server_is_not_asked_through_a_proxy(
    url: str, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Client(url, keys["ada"]) as client:
        assert list(client.list()) == []


@pytest.mark.slow
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_when_one_of_two_servers_stops_the_other_is_found(tmp_path: Path, order: tuple[int, ...]) -> None:
    servers = [start(tmp_path / f"d{number}") for number in range(2)]
    try:
        with Client() as client:
            assert client.url == servers[1].url  # the one started last
        first, second = (servers[number] for number in order)
        stop(first)
        with Client() as client:
            assert client.url == second.url
            assert list(client.list()) == []
    finally:
        for server in servers:
            stop(server)
    assert list(discovery.register().iterdir()) == []
    with pytest.raises(ConnectionFailed, match="no server found"):
        Client()
