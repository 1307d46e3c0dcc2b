"""Datasets uploaded as NPZ: read with suspicion, checked like any other data."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from dmft_schema.data import InputData, KernelData
from dmft_schema.refusal import shortened

MAX_UNPACKED_BYTES = 512 * 2**20
"""Largest size of an upload's arrays, unpacked."""

MAX_ARRAYS = 16
"""Arrays in an upload; those that have a meaning are fewer."""

_INPUT_FIELDS = {"x": "inputs", "y": "targets", "x_test": "test_inputs", "y_test": "test_targets"}
_KERNEL_FIELDS = {
    "kernel": "kernel",
    "y": "targets",
    "cross_kernel": "cross_kernel",
    "test_kernel": "test_kernel",
    "y_test": "test_targets",
}


class UploadError(ValueError):
    """The bytes are not an NPZ of the documented form."""


def read_npz(content: bytes) -> KernelData | InputData:
    """The data in an NPZ.

    Args:
        content: x, y[, x_test, y_test], or kernel, y[, cross_kernel, test_kernel, y_test].

    Raises:
        UploadError: not an NPZ, too large when unpacked, or the wrong arrays.
        pydantic.ValidationError: the arrays do not fit together, or are not finite.
    """
    return of_arrays(_arrays(content))


def of_arrays(arrays: Mapping[str, Any]) -> KernelData | InputData:
    """The data that arrays of these names are; see read_npz.

    Raises:
        UploadError: the wrong arrays.
        pydantic.ValidationError: they do not fit together, or are not finite.
    """
    names = set(arrays)
    fields = _KERNEL_FIELDS if "kernel" in names else _INPUT_FIELDS
    unknown, missing = names - set(fields), {next(iter(fields)), "y"} - names
    if unknown or missing:
        raise UploadError(
            f"the dataset has arrays {sorted(names)}; it must have x and y (and may have x_test, y_test), "
            "or kernel and y (and may have cross_kernel, test_kernel, y_test)"
        )
    chosen = {fields[name]: array for name, array in arrays.items()}
    model = KernelData if "kernel" in names else InputData
    return model.model_validate(chosen)


def to_npz(data: KernelData | InputData) -> bytes:
    """The NPZ that read_npz reads as `data`."""
    fields = _KERNEL_FIELDS if isinstance(data, KernelData) else _INPUT_FIELDS
    arrays = {name: getattr(data, field) for name, field in fields.items()}
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, allow_pickle=False, **{name: array for name, array in arrays.items() if array is not None}
    )
    return buffer.getvalue()


def _arrays(content: bytes) -> dict[str, np.ndarray]:
    if not content.startswith(b"PK"):
        # zipfile looks at the end only, and would take a form with a file in it.
        raise UploadError(
            "the body is not a readable NPZ: it does not begin as one. Send the bytes that numpy.savez has "
            "written as they are (curl --data-binary), not in a form"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            # Sizes are declared in the directory: a bomb is refused before it is unpacked.
            entries = archive.infolist()
        if len(entries) > MAX_ARRAYS:
            raise UploadError(f"the NPZ holds {len(entries)} arrays (limit: {MAX_ARRAYS})")
        unpacked = sum(entry.file_size for entry in entries)
        if unpacked > MAX_UNPACKED_BYTES:
            raise UploadError(f"the NPZ unpacks to {unpacked} bytes (limit: {MAX_UNPACKED_BYTES})")
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: _array(archive, name) for name in archive.files}
    except UploadError:
        raise
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, KeyError, NotImplementedError) as error:
        raise UploadError(f"the body is not a readable NPZ: {error}") from None
    except Exception as error:
        # zlib and struct have errors of their own for damaged members.
        raise UploadError(f"the body is a damaged NPZ: {type(error).__name__}: {error}") from None


def _array(archive: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    try:
        return archive[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise UploadError(
            f"array {shortened(name, 100)} of the NPZ holds objects: save an array of numbers"
        ) from None
