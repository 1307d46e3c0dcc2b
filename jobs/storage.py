"""Room on disk: noticed before it is gone, and named when it is gone."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from jobs.errors import StorageFull
from jobs.settings import Settings

LEAST_FILES = 64
"""Files (inodes) that must be left for a folder to count as having room."""

SMALL_DISK_FRACTION = 0.1
"""On a small filesystem no more than this fraction of it is kept free."""

_FULL = {errno.ENOSPC, errno.EDQUOT}


def is_full(error: BaseException | None) -> bool:
    """Whether an exception, or one that led to it, says that a disk or a quota is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


def shortage(folder: Path, least_free_bytes: int) -> str | None:
    """What a folder's filesystem is short of, in a few words; None while it has room.

    Args:
        folder: need not exist yet: what counts is where it would be made.
        least_free_bytes: fewer bytes than this count as none, or fewer than a tenth of a small filesystem.
    """
    while not folder.exists():
        folder = folder.parent
    disk = os.statvfs(folder)
    free, size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    if free < min(least_free_bytes, SMALL_DISK_FRACTION * size):
        return f"{free / 1e6:.1f} MB are left in {folder.name}"
    # Filesystems without a table of inodes report none at all.
    if disk.f_files and disk.f_favail < min(LEAST_FILES, SMALL_DISK_FRACTION * disk.f_files):
        return f"{disk.f_favail} files can still be made in {folder.name}"
    return None


def shortage_of(settings: Settings) -> str | None:
    """What the service's folders are short of, the first that is; None while all have room."""
    folders: Iterable[Path] = {settings.artifacts}
    if settings.data_dir.exists():
        folders = {*folders, settings.data_dir}
    found = (shortage(folder.resolve(), settings.min_free_bytes) for folder in folders)
    return next((lacking for lacking in found if lacking), None)


def check_room(settings: Settings) -> None:
    """Before something is accepted that will take room.

    Raises:
        StorageFull: too little is left.
    """
    lacking = shortage_of(settings)
    if lacking is not None:
        raise StorageFull(lacking)
