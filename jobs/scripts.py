"""What Redis runs as scripts, transitions first of all: jobs/lua, one file for each (docs/jobs.md)."""

from __future__ import annotations

from importlib import resources
from typing import Any

import redis

from dmft_schema import JobStatus

TRANSITIONS = ("submit", "claim", "beat", "finish", "attempt_failed", "release", "cancel", "delete", "reap")
LISTS = ("page", "mend", "describe")
WORKERS = ("announce", "retire", "crew")


def source(name: str) -> str:
    """A script's text, with what all of them share."""
    folder = resources.files("jobs") / "lua"
    return _statuses() + (folder / "common.lua").read_text() + (folder / f"{name}.lua").read_text()


def load(client: redis.Redis) -> dict[str, Any]:
    """Each script, by its name, to be called with `args`."""
    return {name: client.register_script(source(name)) for name in TRANSITIONS + LISTS + WORKERS}


def _statuses() -> str:
    """The statuses as Lua constants: this enum is the one place that spells them."""
    names = "".join(f"local {status.name} = '{status.value}'\n" for status in JobStatus)
    final = ", ".join(f"[{status.name}] = true" for status in JobStatus if status.final)
    every = ", ".join(status.name for status in JobStatus)
    return f"{names}local STATUSES = {{{every}}}\nlocal FINAL = {{{final}}}\n"
