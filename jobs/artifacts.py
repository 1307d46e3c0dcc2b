"""Results and datasets as files in a folder that api and workers share."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

from jobs.errors import ArtifactMissing

RESULT_JSON = "result.json"
RESULT_NPZ = "result.npz"
_NAME = re.compile(r"^[A-Za-z0-9_.-]+$")


def sync(path: Path) -> None:
    """Return once a file's or folder's content is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Artifacts:
    """A folder with `results/<attempt>/` and `datasets/<sha256>/`.

    Every attempt has a folder of its own, so that a stale worker cannot write into a result that
    somebody reads; only the job's final transition says which attempt counts.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def new_result(self, job_id: str, epoch: str) -> tuple[str, Path]:
        """An empty folder for one attempt: its name and path."""
        name = f"{job_id}.{epoch}"
        folder = self._folder("results", name)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return name, folder

    def seal(self, name: str) -> bool:
        """Put an attempt's files on disk for good. False if it wrote no result."""
        folder = self._folder("results", name)
        files = [folder / RESULT_JSON, folder / RESULT_NPZ]
        if not all(file.is_file() for file in files):
            self.remove_result(name)
            return False
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

    def put_dataset(self, dataset_id: str, owner: str, content: str, description: dict) -> bool:
        """Keep a dataset for an owner. False if the owner had it already."""
        folder = self._folder("datasets", dataset_id)
        marker = folder / f"owner-{owner.encode().hex()}.json"
        if marker.exists():
            return False
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in ((folder / "data.json", content), (marker, json.dumps(description))):
            partial = path.with_suffix(f".{os.getpid()}.partial")
            partial.write_text(text)
            sync(partial)
            partial.replace(path)
        sync(folder)
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
        marker = self._folder("datasets", dataset_id) / f"owner-{owner.encode().hex()}.json"
        return json.loads(marker.read_text()) if marker.is_file() else None

    def datasets(self, owner: str) -> dict[str, dict]:
        """Descriptions of an owner's datasets, by id."""
        found = (self._root / "datasets").glob(f"*/owner-{owner.encode().hex()}.json")
        return {marker.parent.name: json.loads(marker.read_text()) for marker in sorted(found)}

    def _folder(self, kind: str, name: str) -> Path:
        if not _NAME.match(name) or name.startswith("."):
            raise ArtifactMissing(f"{name!r} is no artifact name")
        return self._root / kind / name
