"""The commands that need no server of their own."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import redis

from cli.main import COMMANDS, main
from cli.table import with_error
from jobs.embedded_redis import EmbeddedRedis
from jobs.keys import KeyStore
from tests import waiting
from tests.serving import SMALL, Background
from worker.supervisor import Supervisor


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    path = tmp_path / "request.json"
    path.write_text(json.dumps(SMALL | {"network": {"activation": "relu"}}))
    return path


def run_solve(url: str, key: str, *arguments: str) -> int:
    return main(["solve", *arguments, "--url", url, "--api-key", key])


def test_solve_a_file(
    url: str,
    keys: dict[str, str],
    supervisor: Supervisor,
    background: Background,
    request_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    redis_client: redis.Redis,
) -> None:

    output = tmp_path / "out.npz"

    def claim_when_queued() -> None:
        waiting.until(lambda: redis_client.scard("dmft:waiting"))
        supervisor.work()

    thread = threading.Thread(target=claim_when_queued)
    thread.start()
    assert run_solve(url, keys["ada"], str(request_file), "-o", str(output)) == 0
    thread.join()
    assert "static_ntk" in capsys.readouterr().out
    with np.load(output) as arrays:
        assert arrays["loss"].shape == (5,)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ('{"data": {"dataset": "digits"}, "network": {"activation": "swish"}}', "network.activation"),
        ('{"network": {}}', "data"),
    ],
)
def test_bad_files_are_explained(
    content: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    assert run_solve("http://127.0.0.1:9", "k", str(path)) == 1
    assert words in capsys.readouterr().err
    assert run_solve("http://127.0.0.1:9", "k", str(tmp_path / "none.json")) == 1
    assert "cannot read" in capsys.readouterr().err


def test_keys(redis_server: EmbeddedRedis, redis_client: redis.Redis, capsys: pytest.CaptureFixture) -> None:
    flags = ["--redis-url", redis_server.url]
    assert main(["keys", *flags, "create", "ada"]) == 0
    key = capsys.readouterr().out.strip()
    user = KeyStore(redis_client).authenticate(key)
    assert user is not None
    assert (user.name, user.role) == ("ada", "user")
    assert main(["keys", *flags, "create", "boss", "--admin"]) == 0
    capsys.readouterr()
    assert main(["keys", *flags, "list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[1:3] for line in listed] == [["user", "ada"], ["admin", "boss"]]
    assert all(line.split()[3].startswith("u_") for line in listed)
    assert main(["keys", *flags, "revoke", listed[0].split()[0]]) == 0
    assert KeyStore(redis_client).authenticate(key) is None
    assert main(["keys", *flags, "revoke", "0" * 12]) == 1
    assert main(["keys", *flags, "create", "a:b"]) == 1


def test_keys_without_a_server(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["keys", "--data-dir", str(tmp_path), "list"]) == 1
    assert "is `dmft serve` running?" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["api", "worker"])
def test_parts_need_a_redis(command: str, capsys: pytest.CaptureFixture) -> None:
    assert main([command]) == 1
    assert "--redis-url" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    assert exit_.value.code == 0
    assert "usage: dmft" in capsys.readouterr().out


def test_client_only_installation(url: str, keys: dict[str, str]) -> None:
    """Client and `dmft solve` import neither torch nor celery nor anything of the server's."""
    program = """
import sys
import threading
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "celery", "redis", "fastapi", "pydantic_settings", "scipy",
                                  "sklearn", "uvicorn", "matplotlib"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])
sys.meta_path.insert(0, Block())
from dmft_client import Client
with Client(sys.argv[1], sys.argv[2]) as client:
    print(client.solve(kernel=[[1.0]], targets=[1.0]).id)
from cli.main import main
assert main(["solve", "missing.json"]) == 1
assert main(["serve"]) == 1
"""
    done = subprocess.run(
        [sys.executable, "-c", program, url, keys["ada"]], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("s_")
    assert "pip install 'dmft-service[engine,server]'" in done.stderr


def test_numbers_with_their_errors() -> None:
    assert with_error(0.123456, 0.0012) == "0.1235 ± 0.0012"
    assert with_error(12.3456, 2.0) == "12.3 ± 2.0"
    assert with_error(0.5, None) == "0.5"
    assert with_error(1.0, 0.0) == "1 ± 0"


@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["keys"]])
def test_a_redis_that_does_not_answer_is_named_without_its_password(
    tmp_path: Path, command: list[str]
) -> None:
    url = "redis://:the-password@127.0.0.1:9/0"
    action = ["list"] if command == ["keys"] else []
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "cli.main",
            *command,
            "--redis-url",
            url,
            "--data-dir",
            str(tmp_path / "d"),
            *action,
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "127.0.0.1:9" in done.stderr
    assert "the-password" not in done.stdout + done.stderr
