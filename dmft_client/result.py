"""A result as numpy arrays."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dmft_client import labelled, notebook
from dmft_client.errors import UnexpectedAnswer
from dmft_schema import Diagnostics, Summary, kernel_slice
from dmft_schema.base import FROM_ANY_VERSION

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


class Result:
    """What a solve computed. T recorded times, P training points, C outputs.

    Attributes:
        arrays: everything in the NPZ, by name.
        summary: final loss, kernel-target alignment, kernel movement.
        diagnostics: method, samples, basis sizes, truncation error, wall time, versions.
        manifest: checksums, invariants checked, the request, the citation.
        complete: False for the partial result of a failed or cancelled solve.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                self.arrays: dict[str, NDArray] = {name: stored[name] for name in stored.files}
            about = json.loads(self.arrays.pop("document").tobytes())
            self.complete: bool = about.get("complete", True)
            self.summary = Summary.model_validate(about["summary"], context=FROM_ANY_VERSION)
            self.diagnostics = Diagnostics.model_validate(about["diagnostics"], context=FROM_ANY_VERSION)
            self.manifest: dict = about.get("manifest") or {}
        except MemoryError:
            raise
        except Exception as error:
            # Damaged archives raise what their reader happened to stumble over: zlib.error, struct.error, ...
            raise UnexpectedAnswer(
                f"not a result of this service, or a damaged one: {type(error).__name__}: {error}"
            ) from error

    @classmethod
    def from_bytes(cls, content: bytes) -> Result:
        """From the bytes of a result.npz.

        Raises:
            UnexpectedAnswer: they are none.
        """
        return cls(content)

    @classmethod
    def load(cls, path: str | Path) -> Result:
        """From a file written by `save` or downloaded as result.npz.

        Raises:
            OSError: the file cannot be read.
            UnexpectedAnswer: it is no result.
        """
        return cls(Path(path).read_bytes())

    def save(self, path: str | Path) -> None:
        """Write the NPZ."""
        Path(path).write_bytes(self._content)

    def to_xarray(self) -> xr.Dataset:
        """All arrays with named axes: `result.to_xarray().phi.sel(layer=2, t=0)`; see labelled.to_xarray."""
        return labelled.to_xarray(self)

    def to_dataframe(self) -> pd.DataFrame:
        """The trajectory as a table, a row for each recorded step; see labelled.to_dataframe."""
        return labelled.to_dataframe(self)

    def _repr_html_(self) -> str:
        return notebook.of_result(self)

    @property
    def times(self) -> NDArray:
        """[T] learning time eta * t."""
        return self.arrays["times"]

    @property
    def loss(self) -> NDArray:
        """[T] mean over training points of (f - y)^2, summed over outputs."""
        return self.arrays["loss"]

    @property
    def loss_standard_error(self) -> NDArray | None:
        """[T] over replicas or networks; None for a deterministic method."""
        return self.arrays.get("loss_standard_error")

    @property
    def loss_standard_deviation(self) -> NDArray | None:
        """[T] between single replicas or networks; None for a deterministic method."""
        error, members = self.loss_standard_error, self.diagnostics.replicas
        return None if error is None or members is None else error * members**0.5

    @property
    def loss_truncation_error(self) -> NDArray | None:
        """[T] estimate of the other error of `dmft`; None for the other methods."""
        return self.arrays.get("loss_truncation_error")

    @property
    def test_loss(self) -> NDArray | None:
        """[T]; None without test targets."""
        return self.arrays.get("test_loss")

    @property
    def predictions(self) -> NDArray:
        """[T, P], or [T, P, C] when targets were [P, C]."""
        return self.arrays["predictions"]

    @property
    def test_predictions(self) -> NDArray | None:
        """[T, P'], or [T, P', C]; None without test points."""
        return self.arrays.get("test_predictions")

    @property
    def kernel_times(self) -> NDArray:
        """[K] steps at which kernels were kept; t and s below are indices into it."""
        return self.arrays["kernel_times"]

    def phi(self, layer: int, t: int = -1, s: int | None = None) -> NDArray:
        """Phi^layer between two kernel times, [P, P]; s defaults to t, negative counts from the end.

        Raises:
            KeyError: not asked for, or no such layer.
            IndexError: no such time.
        """
        return kernel_slice(self.arrays, "phi", layer, t, s)

    def g(self, layer: int, t: int = -1, s: int | None = None) -> NDArray:
        """G^layer between two kernel times, [P, P] or [P, C, P, C]; see phi."""
        return kernel_slice(self.arrays, "g", layer, t, s)

    def a(self, layer: int, t: int = -1, s: int | None = None) -> NDArray:
        """The response A^layer = <d phi(h(t)) / d r(s)>, layer 1..L-1, [P, P] or [P, P, C]; see phi.

        Of method linear [P] or [P, C]: r is the same for all points.
        """
        return kernel_slice(self.arrays, "a", layer, t, s)

    def b(self, layer: int, t: int = -1, s: int | None = None) -> NDArray:
        """The response B^layer = <d g^{layer+1}(t) / d u^{layer+1}(s)>, layer 1..L-1, [P, P] or [P, C, P].

        Of method linear [P] or [C, P]: g is the same for all points.
        """
        return kernel_slice(self.arrays, "b", layer, t, s)

    def ntk(self, t: int = -1) -> NDArray:
        """The neural tangent kernel at one kernel time, [P, P] or [P, C, P, C]; see phi."""
        return kernel_slice(self.arrays, "ntk", None, t)
