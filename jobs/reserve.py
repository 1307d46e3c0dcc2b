"""Room kept for Redis: given up when a disk is full, so that what is accepted can still be seen through."""

from __future__ import annotations

import os
from pathlib import Path

from jobs import storage

BYTES = 4 * 2**20
"""Heartbeats of a running job take about 4 KB/s of append-only file: a quarter of an hour's worth."""

_SMALL_DISK_FRACTION = 0.05
_FEW_FILES = 4


class Reserve:
    """A file that only takes up room.

    With `appendfsync always`, Redis ends when it cannot write. Others may use up a disk at any moment; the
    bookkeeping of jobs that were accepted (heartbeats, results, jobs given back) then fits into what this
    file gives up, while nothing new is accepted (jobs.storage).
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "reserve"

    def tend(self, least_free_bytes: int) -> None:
        """Give the room up if there is no other; take it again when there is."""
        disk = os.statvfs(self._path.parent)
        size = int(min(BYTES, _SMALL_DISK_FRACTION * disk.f_blocks * disk.f_frsize))
        if self._path.exists():
            scarce = disk.f_bavail * disk.f_frsize < size
            if scarce or (disk.f_files and disk.f_favail < _FEW_FILES):
                self._path.unlink(missing_ok=True)
        elif storage.shortage(self._path.parent, least_free_bytes) is None:
            self._take(size)

    def _take(self, size: int) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError:
            self._path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
