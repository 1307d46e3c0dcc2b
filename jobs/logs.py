"""Logs of every process: a JSON object a line, with the request and the job it belongs to, and no secrets."""

from __future__ import annotations

import logging
import logging.handlers
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from pythonjsonlogger.json import JsonFormatter

from jobs import storage
from jobs.settings import Settings

_LONGEST_MESSAGE = 8_000
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_SECRETS = (
    (re.compile(r"dmft_[A-Za-z0-9_-]{20,}"), "dmft_***"),
    (re.compile(r"(\w+://[^\s:/@\"]*:)[^\s@\"\\]+@"), r"\1***@"),
    (re.compile(r"(?i)(bearer\s+)[^\s\"\\]+"), r"\1***"),
)

_about: ContextVar[dict[str, str]] = ContextVar("about", default={})  # noqa: B039 - never changed in place


@contextmanager
def about(**ids: str) -> Iterator[None]:
    """What is logged inside belongs to these ids, such as request_id or job_id."""
    token = _about.set({**_about.get(), **ids})
    try:
        yield
    finally:
        _about.reset(token)


def without_secrets(text: str) -> str:
    """A text with API keys and passwords blotted out."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def _bounded(text: str) -> str:
    if len(text) <= _LONGEST_MESSAGE:
        return text
    return f"{text[:_LONGEST_MESSAGE]}... ({len(text)} characters)"


class _Json(JsonFormatter):
    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))

    def process_log_record(self, log_data: dict) -> dict:
        log_data["message"] = _bounded(str(log_data.get("message", "")))
        log_data.pop("color_message", None)  # uvicorn's, for terminals
        return {**log_data, **_about.get()}


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = _bounded(record.message)
        ids = "".join(f" [{name} {value}]" for name, value in _about.get().items())
        return super().formatMessage(record) + ids


def formatter(kind: str) -> logging.Formatter:
    """For `json` or `text`."""
    if kind == "text":
        return _Text(_TEXT)
    return _Json(
        "%(asctime)s %(levelname)s %(name)s %(message)s",
        rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        datefmt="%Y-%m-%dT%H:%M:%S%z",
    )


class _PrivateFile(logging.handlers.RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        if not storage.is_full(sys.exc_info()[1]):
            super().handleError(record)
            return
        # On a full disk the line is lost, and with it what the stream still holds: the file is opened
        # anew for the next one.
        stream, self.stream = self.stream, None
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.close()

    def _open(self):  # type: ignore[no-untyped-def]
        # Opened with its mode, not changed to it: nobody else can read it at any moment.
        def private(path: str, flags: int) -> int:
            return os.open(path, flags, 0o600)

        return open(self.baseFilename, self.mode, encoding="utf-8", errors="replace", opener=private)


def handler(settings: Settings) -> logging.Handler:
    """To the file of these settings, rotated by size, or else to standard error."""
    made: logging.Handler
    if settings.log_file is None:
        made = logging.StreamHandler(sys.stderr)
    else:
        settings.log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = _PrivateFile(
            settings.log_file, maxBytes=settings.log_bytes, backupCount=settings.log_files, delay=True
        )
    made.setFormatter(formatter(settings.log_format))
    return made


def configure(settings: Settings) -> None:
    """Send all that this process logs to one place. To be called once, at its start."""
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler(settings))
    root.setLevel(settings.log_level.upper())
    # One line for each request that a process makes is too much.
    logging.getLogger("httpx").setLevel(logging.WARNING)


def bound(path: Path, most_bytes: int) -> None:
    """Begin a file anew that a process writes to by itself, keeping what it held beside it."""
    try:
        if path.stat().st_size <= most_bytes:
            return
        kept = path.with_name(f"{path.name}.1")
        with (
            open(path, "rb") as old,
            open(os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as new,
        ):
            old.seek(-most_bytes, os.SEEK_END)
            new.write(old.read(most_bytes))
    except FileNotFoundError:
        return
    finally:
        # Whoever has it open appends to it, so it goes on from the start.
        if path.exists() and path.stat().st_size > most_bytes:
            os.truncate(path, 0)
