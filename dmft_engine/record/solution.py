"""What every method hands back, and how it becomes a Result."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmft_engine.problem import Problem
from dmft_engine.record.kernel_record import LateFactors
from dmft_engine.training.truncation import Truncation
from dmft_schema import Diagnostics, JobError, JobStatus, ResultDocument, Summary
from dmft_schema.kernels import kernel_slice
from dmft_schema.observables import (
    all_finite,
    effective_dimension,
    finite,
    kernel_movement,
    kernel_target_alignment,
)

CITATION = (
    "B. Bordelon, C. Pehlevan, Self-Consistent Dynamical Field Theory of Kernel Evolution in Wide "
    "Neural Networks, NeurIPS 2022, arXiv:2205.09653"
)
Arrays = dict[str, NDArray]


@dataclass
class Solution:
    """A method's numbers for R independent members (replicas or networks; 1 if deterministic).

    T recorded steps, K kernel times, P training points, A all points (training first), C outputs.

    Attributes:
        predictions: [R, T, A, C].
        kernel_steps: K steps.
        phi: by layer l = 1..L, what makes factors [R, K, A, 1, k] of each member's kernel; empty if not
            asked.
        g: by layer, what makes factors [R, K, A, C, k].
        ntk: [K, P, C, P, C] mean over members, or None.
        ntk_standard_error: the same shape, or None.
        arrays: what goes into the result as it is, by its name there.
        later: name -> what makes arrays that take time; it calls its argument every moment, which may raise
            Cancelled.
        converged: whether an iteration ended by its own criterion; None if there was none.
        kernel_resolution: error of a kernel entry relative to the largest that is left in them anyway.
        kernel_error: of the kernels at initialisation over sqrt(K_aa K_bb), or None if sampled.
        truncation: what its bases left out of a run (training/truncation.py), or None.
        rounding: [T], estimated error of f by rounding (training/rounding.py), or None.
        computed_in: dtype of the computation where it is not the one asked for.
        basis_sizes, samples, replicas, seed, notes: for the diagnostics.
    """

    predictions: NDArray
    kernel_steps: list[int]
    phi: list[LateFactors]
    g: list[LateFactors]
    ntk: NDArray | None = None
    ntk_standard_error: NDArray | None = None
    arrays: Arrays = field(default_factory=dict)
    later: dict[str, Callable[[Callable[[], None]], Arrays]] = field(default_factory=dict)
    converged: bool | None = None
    kernel_resolution: float = 1e-13
    kernel_error: float | None = None
    truncation: Truncation | None = None
    rounding: NDArray | None = None
    computed_in: str | None = None
    basis_sizes: dict[str, int] = field(default_factory=dict)
    samples: int | None = None
    replicas: int | None = None
    seed: int | None = None
    notes: list[str] = field(default_factory=list)


def standard_error(members: NDArray) -> NDArray | None:
    """Of the mean over the first axis [R, ...]; None for one member."""
    count = members.shape[0]
    return members.std(axis=0, ddof=1) / count**0.5 if count > 1 else None


@dataclass
class Result:
    """A solve's outcome. A failed or cancelled one keeps the trajectory that it had reached.

    Attributes:
        status: succeeded, failed or cancelled.
        error: why it failed.
        arrays: what the NPZ holds; keys and shapes in dmft_schema/kernels.py and docs/results.md.
    """

    problem: Problem
    status: JobStatus
    error: JobError | None
    arrays: Arrays
    diagnostics: Diagnostics

    def document(self) -> ResultDocument:
        """The JSON result."""
        lists = {key: self.arrays[key].tolist() for key in ResultDocument.model_fields if key in self.arrays}
        for required in ("times", "loss", "predictions"):
            lists.setdefault(required, [])
        return ResultDocument(
            complete=self.status is JobStatus.SUCCEEDED,
            summary=self._summary,
            diagnostics=self.diagnostics,
            manifest=self._manifest,
            **lists,
        )

    @cached_property
    def _summary(self) -> Summary:
        loss = self.arrays.get("loss")
        if loss is None or not len(loss):
            return Summary(final_loss=None)
        ntk = self.arrays.get("ntk")
        target_alignment = None
        if ntk is not None and len(ntk):
            target_alignment = finite(kernel_target_alignment(ntk[-1], self.problem.data.targets))
        depth = self.problem.network.recorded
        movement = kernel_movement(self.arrays, depth)
        dimensions = None
        if movement is not None:
            finals = [kernel_slice(self.arrays, "phi", layer) for layer in range(1, depth + 1)]
            dimensions = all_finite([effective_dimension(final) for final in finals])
        return Summary(
            final_loss=float(loss[-1]),
            kernel_target_alignment=target_alignment,
            kernel_movement=all_finite(movement),
            effective_dimension=dimensions,
        )

    @cached_property
    def _manifest(self) -> dict[str, Any]:
        return {
            "arrays": {
                key: {
                    "shape": list(array.shape),
                    "dtype": str(array.dtype),
                    "sha256": hashlib.sha256(np.ascontiguousarray(array).data).hexdigest(),
                }
                for key, array in self.arrays.items()
            },
            "invariants": self._invariants(),
            "citation": CITATION,
        }

    def _invariants(self) -> dict[str, float]:
        """Largest violation found of what must hold exactly, each in its own units."""
        found: dict[str, float] = {}
        predictions = self.arrays.get("predictions")
        if predictions is not None and len(predictions):
            found["f(0) = 0"] = float(np.abs(predictions[0]).max())
        ntk = self.arrays.get("ntk")
        if ntk is not None and len(ntk):
            size = int(np.prod(ntk.shape[1:]) ** 0.5)
            last = ntk[-1].astype(np.float64).reshape(size, size)
            scale = float(np.abs(last).max())
            if scale > 0:
                last /= scale
                found["ntk symmetric, relative"] = float(np.abs(last - last.T).max())
                eigenvalues = np.linalg.eigvalsh((last + last.T) / 2)
                found["ntk positive semidefinite, relative"] = float(
                    max(0.0, -eigenvalues[0]) / eigenvalues[-1]
                )
        return found
