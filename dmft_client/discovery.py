"""Finding the server and its key: arguments, then the environment, then what local servers have left.

Each local server leaves its address in its data folder and, for clients started in other folders, in a
register of running servers, one file each. What a server left that runs no more is passed over.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dmft_client.errors import ConnectionFailed

SERVER_FILE = "server.json"
_PROBE_SECONDS = 1.0


def _state() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "dmft-service"


def register() -> Path:
    """The folder of the register."""
    return _state() / "servers"


def register_file(data_dir: Path) -> Path:
    """The place in the register of the server with this data folder: there can be only one."""
    return register() / f"{hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:16]}.json"


@dataclass(frozen=True)
class Address:
    """A server and the key for it."""

    url: str
    api_key: str | None


@dataclass(frozen=True)
class _Local:
    """What a local server has left."""

    url: str
    key_file: Path
    pid: int | None

    @property
    def ended(self) -> bool:
        """Whether its process is gone for certain."""
        if self.pid is None or os.name != "posix":
            return False
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return True
        except PermissionError:
            pass  # somebody else's process, and there
        return False

    @property
    def answers(self) -> bool:
        """Whether anything listens at its address."""
        try:
            parts = urlsplit(self.url)
            socket.create_connection((parts.hostname, parts.port or 80), timeout=_PROBE_SECONDS).close()
        except (OSError, ValueError):
            return False
        return True


def _read(path: Path) -> _Local | None:
    try:
        left: Any = json.loads(path.read_text())
        return _Local(str(left["url"]).rstrip("/"), Path(left["key_file"]), left.get("pid"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # gone meanwhile, or not by one of our servers


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except OSError:
        return 0.0


def _local() -> Iterator[_Local]:
    """Local servers that may run: that of the data folder first, then the others, the youngest first."""
    data_dir = Path(os.environ.get("DMFT_DATA_DIR", ".dmft"))
    # Servers of version 0.1 left one file for all.
    registered = sorted([_state() / SERVER_FILE, *register().glob("*.json")], key=_age)
    for path in (data_dir / SERVER_FILE, *registered):
        found = _read(path)
        if found is not None and not found.ended:
            yield found


def forget_ended() -> None:
    """Take servers out of the register that were killed before they could do it."""
    for path in register().glob("*.json"):
        found = _read(path)
        if found is None or found.ended:
            path.unlink(missing_ok=True)


def find(url: str | None, api_key: str | None) -> Address:
    """The server to talk to.

    A local server's key is used for that server alone: it is never sent anywhere else.

    Raises:
        ConnectionFailed: no url was given and no local server runs.
    """
    url = url or os.environ.get("DMFT_URL")
    if url is None:
        candidates = list(_local())
        # One that does not answer yet may be about to.
        chosen = next((local for local in candidates if local.answers), candidates[0] if candidates else None)
        if chosen is None:
            raise ConnectionFailed(
                "no server found: start one with `dmft serve`, or give Client(url=...) or DMFT_URL"
            )
        url = chosen.url
    url = url.rstrip("/")
    api_key = api_key or os.environ.get("DMFT_API_KEY")
    if api_key is None:
        key_files = (local.key_file for local in _local() if local.url == url)
        api_key = next((key for key in map(_key, key_files) if key), None)
    return Address(url, api_key)


def _key(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
