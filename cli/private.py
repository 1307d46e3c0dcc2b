"""Only the user that runs the service may read what it keeps."""

from __future__ import annotations

import os
from pathlib import Path

from dmft_client.discovery import SERVER_FILE
from jobs.settings import Settings

KEY_FILE = "admin.key"
LOGS = "logs"
REDIS = "redis"
_OURS = (KEY_FILE, SERVER_FILE, LOGS, REDIS, "artifacts")
_OTHERS = 0o077


def _close(path: Path) -> None:
    about = path.lstat()
    if about.st_uid == os.getuid() and about.st_mode & _OTHERS and not path.is_symlink():
        path.chmod(about.st_mode & 0o7777 & ~_OTHERS)


def _close_all(top: Path) -> None:
    if not top.exists():
        return
    _close(top)
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            try:
                _close(Path(folder) / name)
            except FileNotFoundError:  # others come and go while the server runs
                continue


def make_own(settings: Settings) -> None:
    """Make the data folder, and take from others what they may read of what an earlier version left in it.

    A folder that holds anything else than the service's files keeps its mode: it is somebody's.
    """
    folder = settings.data_dir
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    names = {path.name for path in folder.iterdir()}
    if names <= set(_OURS):
        _close(folder)
    for name in _OURS:
        if not (settings.shared_artifacts and (folder / name).resolve() == settings.artifacts.resolve()):
            _close_all(folder / name)
    (folder / LOGS).mkdir(exist_ok=True, mode=0o700)
    if not settings.shared_artifacts:
        for name in ("results", "datasets", "staging"):
            _close_all(settings.artifacts / name)


def write(path: Path, text: str) -> None:
    """Put a small private file in place, whole or not at all.

    Raises:
        OSError: it cannot be written; what was there before is still there.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
