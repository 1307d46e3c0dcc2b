"""Finding the server and its key: arguments, then the environment, then the local server's files."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from dmft_client.errors import ConnectionFailed

SERVER_FILE = "server.json"


def pointer_file() -> Path:
    """Where a local server leaves its address for clients started in other folders."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "dmft-service" / SERVER_FILE


@dataclass(frozen=True)
class Address:
    """A server and the key for it."""

    url: str
    api_key: str | None


def _local() -> dict[str, str] | None:
    data_dir = Path(os.environ.get("DMFT_DATA_DIR", ".dmft"))
    for path in (data_dir / SERVER_FILE, pointer_file()):
        if path.is_file():
            found: dict[str, str] = json.loads(path.read_text())
            return found
    return None


def find(url: str | None, api_key: str | None) -> Address:
    """The server to talk to.

    The local server's key is used for the local server alone: it is never sent anywhere else.

    Raises:
        ConnectionFailed: no url was given and no local server has left its address.
    """
    local = _local()
    url = url or os.environ.get("DMFT_URL") or (local["url"] if local else None)
    if url is None:
        raise ConnectionFailed(
            "no server found: start one with `dmft serve`, or give Client(url=...) or DMFT_URL"
        )
    api_key = api_key or os.environ.get("DMFT_API_KEY")
    if api_key is None and local is not None and local["url"] == url.rstrip("/"):
        key_file = Path(local["key_file"])
        api_key = key_file.read_text().strip() if key_file.is_file() else None
    return Address(url.rstrip("/"), api_key)
