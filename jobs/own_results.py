"""A solve answered from another's files, in files of its own: the arrays are shared, the labels are not.

Two solves with one result differ in what changes nothing that is computed: id, name, tags, priority, reuse.
These stand at the end of a result's document, and the document at the end of the NPZ. So what is the solve's
own is a file's beginning, as it is stored, and an end that is written anew whenever somebody asks for it. No
array is copied.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.lib import format as npy
from pydantic_core import to_json

from dmft_schema import Job

_DOCUMENT = "document.npy"
_FIRST_LABEL = b',"name":'
"""In JSON without spaces a comma, a quoted word and a colon can be nothing but a key."""

_LABELS = {"name", "tags", "priority", "reuse"}
_LONGEST_END = 2**18
_PIECE = 2**20


@dataclass(frozen=True)
class Labels:
    """What a solve has of its own beside another with the same result."""

    solve_id: str
    name: str | None
    tags: list[str]
    priority: int
    reuse: bool = True

    @classmethod
    def of(cls, job: Job) -> Labels:
        """Those of a solve that was answered from files that were there already."""
        priority = (job.request.model_extra or {}).get("priority", 0)
        return cls(job.id, job.name, job.tags, int(priority))

    @property
    def request(self) -> dict[str, Any]:
        """As they stand in the request."""
        return {name: value for name, value in asdict(self).items() if name in _LABELS}


def validator(artifact: str, labels: Labels) -> str:
    """A strong validator (ETag) of such files, which tells nothing of whose they were first."""
    content = json.dumps([artifact, asdict(labels)], sort_keys=True)
    return f'"{labels.solve_id}.{hashlib.sha256(content.encode()).hexdigest()[:32]}"'


class Spliced(io.RawIOBase):
    """A stored file up to some place, and after it an end of its own. For readers, once it is made."""

    def __init__(self, path: Path) -> None:
        """The whole file, to begin with."""
        super().__init__()
        self._stored = path.open("rb")
        self._place = self._stored.seek(0, io.SEEK_END)
        self._end: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=4 * _PIECE)  # noqa: SIM115
        self._at = 0

    def cut(self, place: int) -> None:
        """The end begins here."""
        self._place = place

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self._place + self._end.seek(0, io.SEEK_END)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        if self._at < self._place:
            self._stored.seek(self._at)
            piece = self._stored.read(min(len(buffer), self._place - self._at))
        else:
            self._end.seek(self._at - self._place)
            piece = self._end.read(len(buffer))
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def write(self, piece: Any) -> int:
        self._end.seek(self._at - self._place)
        count = self._end.write(piece)
        self._at += count
        return count

    def truncate(self, size: int | None = None) -> int:
        size = self._at if size is None else size
        self._end.truncate(size - self._place)
        return size

    def close(self) -> None:
        if not self.closed:
            self._stored.close()
            self._end.close()
        super().close()


def document(path: Path, labels: Labels) -> Spliced:
    """result.json with other labels than the stored one."""
    own = Spliced(path)
    with path.open("rb") as stored:
        kept, end = _relabelled(stored, own.size, labels)
    own.cut(kept)
    own.seek(kept)
    own.write(end)
    own.seek(0)
    return own


def archive(path: Path, labels: Labels) -> Spliced:
    """result.npz with other labels than the stored one.

    Raises:
        ValueError: the document is not what the archive ends with, as it has been in every version.
    """
    own = Spliced(path)
    with zipfile.ZipFile(path) as stored, zipfile.ZipFile(cast(IO[bytes], own), "a") as ours:
        old = ours.NameToInfo.pop(_DOCUMENT)
        ours.filelist.remove(old)
        if any(member.header_offset > old.header_offset for member in ours.filelist):
            own.close()
            raise ValueError(f"{path.name} does not end with its document")
        # The end of the archive is written again from here on.
        ours.start_dir = old.header_offset
        own.cut(old.header_offset)
        with stored.open(old) as source:
            npy.read_magic(source)
            npy.read_array_header_1_0(source)
            begin = source.tell()
            kept, end = _relabelled(source, old.file_size, labels)
            with ours.open(zipfile.ZipInfo(_DOCUMENT), "w", force_zip64=True) as target:
                shape = (kept - begin + len(end),)
                header = {
                    "descr": npy.dtype_to_descr(np.dtype(np.uint8)),
                    "fortran_order": False,
                    "shape": shape,
                }
                npy.write_array_header_1_0(cast(Any, target), header)
                source.seek(begin)
                while begin < kept:
                    piece = source.read(min(_PIECE, kept - begin))
                    begin += len(piece)
                    target.write(piece)
                target.write(end)
    own.seek(0)
    return own


def _relabelled(stored: IO[bytes], size: int, labels: Labels) -> tuple[int, bytes]:
    """How many of a document's bytes stay, and what comes after them."""
    first = stored.tell()
    start = max(first, size - _LONGEST_END)
    stored.seek(start)
    end = stored.read()
    found = end.rfind(_FIRST_LABEL)
    if found >= 0:
        try:
            manifest = json.loads(b'{"request":{' + end[found + 1 : -1])
        except ValueError:
            manifest = {}
        if manifest.keys() <= {"request", "solve_id"} and manifest.get("request", {}).keys() == _LABELS:
            rest = to_json(labels.request)[1:] + b',"solve_id":' + to_json(labels.solve_id) + b"}}"
            return start + found + 1, rest
    # Some other version's: read as a whole.
    stored.seek(first)
    whole = json.loads(stored.read())
    manifest = whole.setdefault("manifest", {})
    manifest["request"] = {**(manifest.get("request") or {}), **labels.request}
    manifest["solve_id"] = labels.solve_id
    return first, to_json(whole, inf_nan_mode="constants")
