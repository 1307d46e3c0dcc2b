from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import redis

from jobs.connection import connect
from jobs.embedded_redis import EmbeddedRedis, EmbeddedRedisError


def test_two_servers_on_one_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    with EmbeddedRedis(folder) as first:
        with pytest.raises(EmbeddedRedisError, match="another server is using"):
            EmbeddedRedis(folder).start()
        assert connect(first.url).ping()
    with EmbeddedRedis(folder) as again:
        assert connect(again.url).ping()


def test_what_was_written_survives_a_kill(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "r") as server:
        connect(server.url).set("key", "value")
        server.kill()
        assert not server.alive
    with EmbeddedRedis(tmp_path / "r") as server:
        client = connect(server.url)
        assert client.get("key") == "value"
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_folder_and_socket_are_private(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "r") as server:
        socket = Path(server.url.removeprefix("unix://"))
        assert socket.stat().st_mode & 0o077 == 0
        assert socket.parent.stat().st_mode & 0o077 == 0


def test_long_paths_get_a_socket_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    with EmbeddedRedis(folder) as server:
        assert connect(server.url).ping()
        assert server.url.startswith(f"unix://{tempfile.gettempdir()}")
        assert EmbeddedRedis(folder).url == server.url


def test_it_goes_with_its_launcher(tmp_path: Path) -> None:
    """SIGKILL of the launcher takes the server along."""
    launcher = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from jobs.embedded_redis import EmbeddedRedis\n"
            "server = EmbeddedRedis(Path(sys.argv[1])); server.start(); print(server.url, flush=True)\n"
            "sys.stdin.read()",
            str(tmp_path / "r"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with launcher:
        assert launcher.stdout is not None
        url = launcher.stdout.readline().strip()
        subscriber = connect(url).pubsub()
        subscriber.subscribe("anything")
        assert subscriber.get_message(timeout=5)
        launcher.kill()
        launcher.wait()
        with pytest.raises(redis.ConnectionError):  # the connection breaks when the server ends
            subscriber.connection.read_response(timeout=10)
