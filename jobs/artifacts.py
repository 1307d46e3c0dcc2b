"""Results and datasets as files in a folder that api and workers share."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs import storage
from jobs.errors import ArtifactMissing, DatasetQuota, StorageFull
from jobs.settings import Settings

RESULT_JSON = "result.json"
RESULT_NPZ = "result.npz"
_NAME = re.compile(r"^[A-Za-z0-9_.-]{1,200}$")
_STALE_SECONDS = 3600.0
"""A file staged this long ago is nobody's any more: staging one takes seconds."""


def sync(path: Path) -> None:
    """Return once a file's or folder's content is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Artifacts:
    """A folder with `results/<attempt>/`, `datasets/<sha256>/` and `staging/`.

    Every attempt has a folder of its own, so that a stale worker cannot write into a result that
    somebody reads; only the job's final transition says which attempt counts. A dataset's files are
    written in `staging/` and moved to their place when they are on disk: what is in place is complete.
    All of it is readable by its owner alone, and by the group of the folder if it is `shared`.
    """

    def __init__(
        self,
        root: Path,
        *,
        shared: bool = False,
        min_free_bytes: int = 0,
        max_datasets: int | None = None,
        max_dataset_bytes: int | None = None,
    ) -> None:
        """The last two: datasets, and bytes of them, that one owner may keep; None is without limit."""
        self._root = root
        self._max_datasets, self._max_dataset_bytes = max_datasets, max_dataset_bytes
        self._folder_mode, self._file_mode = (0o2770, 0o660) if shared else (0o700, 0o600)
        self._min_free_bytes = min_free_bytes

    @classmethod
    def of(cls, settings: Settings) -> Artifacts:
        """The artifacts of a server with these settings."""
        return cls(
            settings.artifacts,
            shared=settings.shared_artifacts,
            min_free_bytes=settings.min_free_bytes,
            max_datasets=settings.max_datasets_per_user,
            max_dataset_bytes=settings.max_dataset_bytes_per_user,
        )

    # Results

    @staticmethod
    def result_name(job_id: str, epoch: str) -> str:
        """What the folder of an attempt is called."""
        return f"{job_id}.{epoch}"

    @staticmethod
    def is_of(name: str, job_id: str) -> bool:
        """Whether a result is what the job itself computed."""
        return name.rsplit(".", 1)[0] == job_id

    def new_result(self, job_id: str, epoch: str) -> tuple[str, Path]:
        """An empty folder for one attempt: its name and path."""
        name = self.result_name(job_id, epoch)
        folder = self._folder("results", name)
        shutil.rmtree(folder, ignore_errors=True)
        self._make(folder)
        return name, folder

    def seal(self, name: str) -> bool:
        """Put an attempt's files on disk for good. False if it wrote no result."""
        folder = self._folder("results", name)
        files = [folder / RESULT_JSON, folder / RESULT_NPZ]
        if not all(file.is_file() for file in files):
            self.remove_result(name)
            return False
        for file in files:
            file.chmod(self._file_mode)
        for path in (*files, folder, folder.parent):
            sync(path)
        return True

    def result_file(self, name: str, file: str) -> Path:
        """Path of a result's file.

        Raises:
            ArtifactMissing: it is not there.
        """
        path = self._folder("results", name) / file
        if not path.is_file():
            raise ArtifactMissing(f"{file} of result {name}")
        return path

    def remove_result(self, name: str) -> None:
        """Remove an attempt's files, if they are there."""
        shutil.rmtree(self._folder("results", name), ignore_errors=True)

    # Datasets

    def put_dataset(self, dataset_id: str, owner: str, content: str, description: dict) -> bool:
        """Keep a dataset for an owner. False if the owner had it already.

        Any number may put the same one at the same time; a failure leaves nothing behind.

        Raises:
            DatasetQuota: the owner may keep no more.
            StorageFull: too little room is left.
        """
        folder = self._folder("datasets", dataset_id)
        marker = self._marker(dataset_id, owner)
        if marker.exists():
            return False
        lacking = storage.shortage(self._root.resolve(), self._min_free_bytes)
        if lacking is not None:
            raise StorageFull(lacking)
        data = folder / "data.json"
        staged: dict[Path, Path] = {}
        try:
            if not data.exists():
                staged[data] = self._stage(content)
            staged[marker] = self._stage(json.dumps(description))
            with self._datasets_locked():
                if marker.exists():
                    return False
                self._check_quota(owner, len(content.encode()))
                if data not in staged and not data.exists():  # its last owner removed it meanwhile
                    staged = {data: self._stage(content), **staged}
                self._make(folder)
                for place, file in staged.items():
                    file.replace(place)
                sync(folder)
                sync(folder.parent)
            return True
        except OSError as error:
            if storage.is_full(error):
                raise StorageFull("a dataset could not be written") from None
            raise
        finally:
            for file in staged.values():
                file.unlink(missing_ok=True)
            self._remove_if_empty(folder)

    def remove_dataset(self, dataset_id: str, owner: str) -> bool:
        """Remove an owner's dataset; its content goes with its last owner. False if the owner has none."""
        folder = self._folder("datasets", dataset_id)
        if not folder.is_dir():
            return False
        with self._datasets_locked():
            marker = self._marker(dataset_id, owner)
            if not marker.is_file():
                return False
            marker.unlink()
            if not any(folder.glob("owner-*.json")):
                shutil.rmtree(folder)
        return True

    def dataset_file(self, dataset_id: str) -> Path:
        """Path of a dataset's content, a KernelData or InputData as JSON.

        Raises:
            ArtifactMissing: it is not there.
        """
        path = self._folder("datasets", dataset_id) / "data.json"
        if not path.is_file():
            raise ArtifactMissing(f"dataset {dataset_id}")
        return path

    def dataset_description(self, dataset_id: str, owner: str) -> dict | None:
        """What was noted of an owner's dataset; None if the owner has none with this id."""
        if not _NAME.match(dataset_id):
            return None
        marker = self._marker(dataset_id, owner)
        return json.loads(marker.read_text()) if marker.is_file() else None

    def datasets(self, owner: str) -> dict[str, dict]:
        """Descriptions of an owner's datasets, by id."""
        found = (self._root / "datasets").glob(f"*/owner-{owner.encode().hex()}.json")
        return {marker.parent.name: json.loads(marker.read_text()) for marker in sorted(found)}

    def dataset_bytes(self, owner: str) -> int:
        """Size of an owner's datasets, those shared with others included."""
        return sum(self.dataset_file(name).stat().st_size for name in self.datasets(owner))

    def _check_quota(self, owner: str, more: int) -> None:
        if self._max_datasets is not None and len(self.datasets(owner)) >= self._max_datasets:
            raise DatasetQuota(
                f"you keep {self._max_datasets} datasets already (limit: {self._max_datasets})"
            )
        if self._max_dataset_bytes is not None:
            kept = self.dataset_bytes(owner)
            if kept + more > self._max_dataset_bytes:
                raise DatasetQuota(
                    f"this dataset of {more} bytes beside your others of {kept} bytes is too much "
                    f"(limit: {self._max_dataset_bytes} bytes)"
                )

    # Files

    def sweep(self) -> int:
        """Remove what a process that died left in staging. Returns how many files."""
        removed = 0
        for file in (self._root / "staging").glob("*"):
            try:
                if time.time() - file.stat().st_mtime > _STALE_SECONDS:
                    file.unlink()
                    removed += 1
            except OSError:  # somebody else was faster, or it is another user's to remove
                continue
        return removed

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """A path in staging for what is yet to be looked at; gone at the end."""
        path = self._new_path()
        path.touch(mode=0o600, exist_ok=False)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _new_path(self) -> Path:
        folder = self._root / "staging"
        self._make(folder)
        return folder / secrets.token_hex(16)

    def _stage(self, text: str) -> Path:
        """A new file with this content, on disk, under a name that nobody else uses."""
        path = self._new_path()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            path.chmod(self._file_mode)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    @contextmanager
    def _datasets_locked(self) -> Iterator[None]:
        """Puts and removals of datasets one at a time, across threads and processes."""
        folder = self._root / "datasets"
        self._make(folder)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _make(self, folder: Path) -> None:
        """Make a folder of ours, and those above it up to the root, private (or the group's)."""
        if folder.is_dir():
            return
        if folder != self._root and folder.parent != folder:
            self._make(folder.parent)
        try:
            folder.mkdir(parents=folder == self._root)
        except FileExistsError:
            return
        # Not mkdir's mode, which the umask takes from.
        folder.chmod(self._folder_mode)

    @staticmethod
    def _remove_if_empty(folder: Path) -> None:
        try:
            folder.rmdir()
        except OSError:
            return  # it is in use, or was never made

    def _marker(self, dataset_id: str, owner: str) -> Path:
        return self._folder("datasets", dataset_id) / f"owner-{owner.encode().hex()}.json"

    def _folder(self, kind: str, name: str) -> Path:
        if not _NAME.match(name) or name.startswith("."):
            raise ArtifactMissing(f"{name!r} is no artifact name")
        return self._root / kind / name
