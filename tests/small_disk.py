"""A small filesystem of its own, to be filled."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, megabytes: int, inodes: int = 2000) -> Iterator[Path]:
    """A tmpfs of this size in `folder`; the test is skipped where it must not be mounted."""
    folder.mkdir()
    options = f"size={megabytes}m,nr_inodes={inodes},mode=700"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"a small filesystem cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, name: str = "filler") -> Path:
    """Use every free byte of a small filesystem. Returns the file that does."""
    path = folder / name
    with open(path, "wb", buffering=0) as stream:
        for size in (2**16, 2**12, 1):
            try:
                while stream.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return path


def use_up_inodes(folder: Path) -> Path:
    """Make empty files until no more can be made. Returns the folder that holds them."""
    many = folder / "many"
    many.mkdir()
    count = 0
    try:
        while True:
            (many / str(count)).touch()
            count += 1
    except OSError:
        return many
