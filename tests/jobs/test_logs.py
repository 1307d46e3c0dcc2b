"""Logs: one JSON object a line, ids in it, secrets not, files bounded and private."""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import logs
from jobs.settings import Settings
from tests import small_disk


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("dmft.test-logs")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield logger
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_an_object_with_the_ids_it_belongs_to(tmp_path: Path, logger: logging.Logger) -> None:
    file = tmp_path / "a.log"
    logger.addHandler(logs.handler(Settings(log_file=file)))
    with logs.about(request_id="r1"), logs.about(job_id="s_1"):
        logger.warning("one\nmessage of %d lines", 2)
    logger.info("another")
    try:
        raise ValueError("with a trace")
    except ValueError:
        logger.exception("failed")
    first, second, third = lines(file)
    assert (first["request_id"], first["job_id"], first["level"]) == ("r1", "s_1", "WARNING")
    assert first["message"] == "one\nmessage of 2 lines"
    assert {"time", "logger"} <= set(first)
    assert "job_id" not in second
    assert "ValueError: with a trace" in third["exc_info"]


def test_ids_of_one_thread_are_not_anothers(tmp_path: Path, logger: logging.Logger) -> None:
    file = tmp_path / "a.log"
    logger.addHandler(logs.handler(Settings(log_file=file)))
    both = threading.Barrier(2)

    def work(job_id: str) -> None:
        with logs.about(job_id=job_id):
            both.wait()
            logger.info("of %s", job_id)

    threads = [threading.Thread(target=work, args=[name]) for name in ("s_1", "s_2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {(line["job_id"], line["message"]) for line in lines(file)} == {
        ("s_1", "of s_1"),
        ("s_2", "of s_2"),
    }


@pytest.mark.parametrize("kind", ["json", "text"])
def test_no_secret_is_logged(tmp_path: Path, logger: logging.Logger, kind: str) -> None:
    file = tmp_path / "a.log"
    logger.addHandler(logs.handler(Settings(log_file=file, log_format=kind)))
    key, password = f"dmft_{secrets.token_urlsafe(32)}", secrets.token_hex(8)
    logger.info("GET /?key=%s", key)
    logger.info("Authorization: Bearer %s", password)
    logger.info("redis://:%s@host:6379/0 and redis://user:%s@host", password, password)
    try:
        raise ValueError(f"redis://:{password}@host, {key}")
    except ValueError:
        logger.exception("failed")
    written = file.read_text()
    assert key not in written
    assert password not in written
    assert "redis://:***@host" in written
    if kind == "json":
        assert len(lines(file)) == 4


def test_plain_text_has_the_ids_too(tmp_path: Path, logger: logging.Logger) -> None:
    file = tmp_path / "a.log"
    logger.addHandler(logs.handler(Settings(log_file=file, log_format="text")))
    with logs.about(job_id="s_1"):
        logger.info("a message")
    assert "INFO dmft.test-logs: a message [job_id s_1]" in file.read_text()


def test_logs_are_rotated_by_size_and_private(tmp_path: Path, logger: logging.Logger) -> None:
    file = tmp_path / "a.log"
    logger.addHandler(logs.handler(Settings(log_file=file, log_bytes=5_000, log_files=2)))
    for i in range(200):
        logger.info("message %d %s", i, "x" * 100)
    logger.info("y" * 1_000_000)
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["a.log", "a.log.1", "a.log.2"]
    for path in files:
        assert path.stat().st_size < 5_000 + 10_000  # a line may be the last to fit
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_full_disk_costs_lines_and_nothing_else(tmp_path: Path, logger: logging.Logger, capsys) -> None:
    with small_disk.mounted(tmp_path / "disk", 1) as disk:
        file = disk / "a.log"
        handler = logs.handler(Settings(log_file=file))
        logger.addHandler(handler)
        logger.info("before")
        filler = small_disk.fill(disk)
        for i in range(100):
            logger.info("message %d %s", i, "x" * 1000)
        filler.unlink()
        logger.info("after")
        handler.close()
        assert file.read_text().splitlines()[0].find("before") > 0
        assert "after" in file.read_text().splitlines()[-1]
    assert capsys.readouterr().err == ""


def test_output_of_others_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "worker.out"
    logs.bound(path, 100)  # not there yet
    with open(path, "a") as writer:
        writer.write("x" * 150 + "end")
        writer.flush()
        logs.bound(path, 100)
        writer.write("goes on")
    assert path.read_text() == "goes on"
    kept = tmp_path / "worker.out.1"
    assert kept.read_text() == "x" * 97 + "end"
    assert kept.stat().st_mode & 0o777 == 0o600
