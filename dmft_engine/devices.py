"""What a device has room for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch

from dmft_engine.errors import OutOfMemory
from dmft_schema.memory import Demand, shortage

_most: ContextVar[float] = ContextVar("most", default=math.inf)
_CGROUP = Path("/sys/fs/cgroup")


def available_bytes(device: str) -> float:
    """Memory that a solve on this device may take now; infinite where nobody can tell."""
    if device.startswith("cuda"):
        index = torch.device(device)
        free, _ = torch.cuda.mem_get_info(index)
        return free + torch.cuda.memory_reserved(index) - torch.cuda.memory_allocated(index)
    if device != "cpu":
        return math.inf
    return min(_of_machine(), _of_container())


@contextmanager
def limited_to(memory_bytes: float) -> Iterator[None]:
    """What is solved inside may take no more than so much, however much is free."""
    token = _most.set(memory_bytes)
    try:
        yield
    finally:
        _most.reset(token)


def check_room(demand: Demand, device: str) -> None:
    """Refuse to start what would not fit.

    Raises:
        OutOfMemory: naming what it needs, what there is, and a size that would fit.
    """
    found = shortage(demand, min(available_bytes(device), _most.get()))
    if found is not None:
        raise OutOfMemory(f"{found.message} on {device}", found.advice)


def _of_machine() -> float:
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return math.inf
    fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
    return float(fields["MemAvailable"].split()[0]) * 1024


def _of_container() -> float:
    """What the limit of a container leaves; files that it has cached are given up first."""
    limit, used = _CGROUP / "memory.max", _CGROUP / "memory.current"
    if not limit.is_file() or limit.read_text().strip() == "max":
        return math.inf
    stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    return float(limit.read_text()) - float(used.read_text()) + float(stat["inactive_file"])
