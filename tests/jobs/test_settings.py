"""A wrong setting is named with its value and what is allowed, in one line, whichever it is."""

from __future__ import annotations

import math
import os
import re
import string
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cli.main import COMMANDS, main
from jobs.configuration import SettingsError, allowed, load
from jobs.settings import Settings

ROOT = Path(__file__).parents[2]
SCHEMA = Settings.model_json_schema()["properties"]
TALK_TO_A_SERVER = {"solve", "list", "show", "watch", "cancel", "delete", "download", "compare", "plot"}
"""As clients, which need none of its settings."""

READ_BY = sorted(set(COMMANDS) - TALK_TO_A_SERVER)
"""`dmft solve` is a client: it has no use for a server's settings."""

WORDS = st.text(string.ascii_letters + " _;=#%é\n\t", min_size=1, max_size=300)


def _no_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return True
    return False


def wrong_values(name: str) -> st.SearchStrategy[str]:
    """Values that the setting cannot have, as they stand in an environment."""
    field = SCHEMA[name]
    if "enum" in field:
        return WORDS.filter(lambda text: text.upper() not in map(str.upper, field["enum"]))
    kind = field.get("type")
    if kind == "boolean":
        words = {"0", "1", "t", "f", "y", "n", "true", "false", "yes", "no", "on", "off"}
        return WORDS.filter(lambda text: text.lower() not in words)
    if kind in ("integer", "number"):
        low, high = field.get("minimum", field.get("exclusiveMinimum")), field["maximum"]
        outside = st.floats(max_value=low, exclude_max=True) | st.floats(min_value=high, exclude_min=True)
        if kind == "integer":
            outside = st.integers(max_value=low - 1) | st.integers(min_value=high + 1)
            outside |= st.floats(low, 1e6).filter(lambda x: x % 1)
        odd = st.sampled_from(["nan", "inf", "-inf", "1e999", "1,5", "0x10", "--", "1 2", "10GB"])
        return WORDS.filter(_no_number) | odd | outside.map(str)
    return {
        "redis_url": st.sampled_from(["localhost", "http://:pw@h/0", "redis://h:port", "redis:/h:pw@x"]),
        "host": WORDS.filter(lambda text: re.search(r"[^A-Za-z0-9_.:%-]", text) is not None),
        "device": WORDS.filter(lambda text: text not in ("cpu", "cuda")) | st.just("cuda:x"),
        "root_path": WORDS.filter(lambda text: not text.startswith("/")) | st.just("/a b"),
        "cors_origins": WORDS.filter(lambda text: text.strip() not in ("", "null")) | st.just("https://a/b"),
        "data_dir": st.sampled_from([__file__, f"{__file__}/below", "x" * 300]),
        "artifact_dir": st.sampled_from([__file__, f"{__file__}/below", "x" * 300]),
        "log_file": st.sampled_from([f"{__file__}/below", str(ROOT), f"{'x' * 300}/log"]),
    }[name]


@given(st.data())
@hypothesis_settings(
    max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
def test_every_wrong_setting_is_named_with_its_value_and_what_is_allowed(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(Settings.model_fields)))
    value = data.draw(wrong_values(name))
    variable = f"DMFT_{name.upper()}"
    with mock.patch.dict(os.environ, {variable: value}), pytest.raises(SettingsError) as caught:
        load()
    line = str(caught.value)
    assert line.startswith(f"{variable}=")
    assert "\n" not in line
    assert len(line) < 500
    assert ": must be " in line
    if "@" in value:
        assert "pw" not in line
    elif value.isprintable() and len(value) <= 100 and name != "log_level":
        assert value in line


def test_what_is_allowed_is_said_of_every_setting() -> None:
    for name, field in Settings.model_fields.items():
        assert allowed(name)
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            assert re.search(r"number (from|above) \S+ to \S+$", allowed(name)), name


@given(st.data())
@hypothesis_settings(max_examples=200, deadline=None, derandomize=True)
def test_settings_within_their_limits_are_taken(data: st.DataObject) -> None:
    """And what is made of them is finite: milliseconds of the longest lease, say."""
    numbers = {name: field for name, field in SCHEMA.items() if field.get("type") in ("integer", "number")}
    chosen: dict[str, Any] = {}
    for name, field in numbers.items():
        low = field.get("minimum", field.get("exclusiveMinimum", 0) + 1)
        draw = st.integers if field["type"] == "integer" else st.floats
        chosen[name] = data.draw(draw(low, field["maximum"]))
    loaded = load(**chosen)
    assert loaded.solver_threads >= 1
    assert math.isfinite(loaded.solve_bytes)
    assert 0 < loaded.lease_milliseconds < 2**53
    assert {name: getattr(loaded, name) for name in chosen} == chosen


def test_a_variable_that_is_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(f"DMFT_{name.upper()}", "")
    assert load() == Settings.model_construct()


@pytest.mark.parametrize("command", READ_BY)
def test_every_command_says_so_and_ends_with_2(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMFT_WORKERS", "abc")
    arguments = ["list"] if command == "keys" else []
    assert main([command, *arguments]) == 2
    said = capsys.readouterr()
    assert said.err == f"dmft {command}: DMFT_WORKERS=abc: must be a whole number from 1 to 64\n"
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "demo-output"])


def test_an_option_is_named_as_it_was_given(capsys: pytest.CaptureFixture) -> None:
    assert main(["serve", "--port", "99999", "--device", "gpu"]) == 2
    error = capsys.readouterr().err
    assert "--port=99999: must be a whole number from 0 to 65535" in error
    assert "--device=gpu: must be cpu, cuda or cuda:N" in error


@pytest.mark.slow
def test_celery_itself_says_so_too() -> None:
    """A worker that is started without `dmft worker`."""
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "worker.app", "worker"],
        env=os.environ | {"DMFT_LEASE_SECONDS": "soon", "DMFT_REDIS_URL": "redis://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert "DMFT_LEASE_SECONDS=soon: must be a number from 0.1" in done.stderr
    assert "Traceback" not in done.stderr


def test_importing_the_worker_reads_no_settings() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import worker.app, worker.task, jobs.tickets"],
        env=os.environ | {"DMFT_PORT": "abc"},
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr


def test_a_place_that_cannot_be_written_is_named(capsys: pytest.CaptureFixture) -> None:
    assert main(["serve", "--port", "0", "--data-dir", "/proc/none"]) == 1
    assert "/proc/none" in capsys.readouterr().err
