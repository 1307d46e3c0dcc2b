"""What every method hands back, and how it becomes a Result."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dmft_engine.model.losses import LOSSES
from dmft_engine.model.recipe import Recipe
from dmft_engine.problem import Problem
from dmft_engine.record.kernel_record import compress, mean_factor
from dmft_schema import Diagnostics, JobError, JobStatus, ResultDocument, Summary
from dmft_schema.kernels import kernel_slice
from dmft_schema.limits import MAX_KERNEL_ENTRIES
from dmft_schema.numerics import NUMERICS_VERSION
from dmft_schema.observables import effective_dimension, kernel_movement, kernel_target_alignment

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
        phi: by layer l = 1..L, factors [R, K, A, 1, k] of each member's kernel; empty if not asked.
        g: by layer, factors [R, K, A, C, k].
        ntk: [K, P, C, P, C] mean over members, or None.
        ntk_standard_error: the same shape, or None.
        arrays: what goes into the result as it is, by its name there.
        converged: whether an iteration ended by its own criterion; None if there was none.
        kernel_resolution: error of a kernel entry relative to the largest that is left in them anyway.
        kernel_error: of the kernels at initialisation over sqrt(K_aa K_bb), or None if sampled.
        delay: [T], truncation as a delay in learning time (methods/dmft.py), or None.
        basis_sizes, samples, replicas, seed, notes: for the diagnostics.
    """

    predictions: NDArray
    kernel_steps: list[int]
    phi: list[NDArray]
    g: list[NDArray]
    ntk: NDArray | None = None
    ntk_standard_error: NDArray | None = None
    arrays: Arrays = field(default_factory=dict)
    converged: bool | None = None
    kernel_resolution: float = 1e-13
    kernel_error: float | None = None
    delay: NDArray | None = None
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
            target_alignment = kernel_target_alignment(ntk[-1], self.problem.data.targets)
        depth = self.problem.network.depth
        movement = kernel_movement(self.arrays, depth)
        dimensions = None
        if movement is not None:
            finals = [kernel_slice(self.arrays, "phi", layer) for layer in range(1, depth + 1)]
            dimensions = [effective_dimension(final) for final in finals]
        return Summary(
            final_loss=float(loss[-1]),
            kernel_target_alignment=target_alignment,
            kernel_movement=movement,
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
            found["ntk symmetric, relative"] = float(np.abs(last - last.T).max() / np.abs(last).max())
            eigenvalues = np.linalg.eigvalsh((last + last.T) / 2)
            found["ntk positive semidefinite, relative"] = float(max(0.0, -eigenvalues[0]) / eigenvalues[-1])
        return found


def assemble(
    problem: Problem,
    solution: Solution | None,
    status: JobStatus,
    error: JobError | None,
    device: str,
    wall_seconds: float,
) -> Result:
    """Turn a method's numbers into the arrays and diagnostics that users see."""
    arrays: Arrays = {}
    if solution is not None and solution.predictions.shape[1]:
        arrays |= _trajectory_arrays(problem, solution) | solution.arrays
        if problem.outputs.kernels and solution.kernel_steps:
            arrays |= _kernel_arrays(problem, solution)
    truncation = arrays.get("loss_truncation_error")
    diagnostics = Diagnostics(
        method=problem.method.name,
        samples=solution.samples if solution else None,
        replicas=solution.replicas if solution else None,
        basis_sizes=solution.basis_sizes if solution else {},
        truncation_error=None if truncation is None else float(truncation.max()),
        kernel_error=solution.kernel_error if solution else None,
        wall_seconds=wall_seconds,
        device=device,
        dtype=problem.method.dtype,
        seed=solution.seed if solution else None,
        converged=solution.converged if solution else None,
        versions={
            "numerics": NUMERICS_VERSION,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        notes=solution.notes if solution else [],
    )
    return Result(problem, status, error, arrays, diagnostics)


def _trajectory_arrays(problem: Problem, solution: Solution) -> Arrays:
    data, training = problem.data, problem.training
    predictions = solution.predictions.astype(np.float64)
    steps = predictions.shape[1]
    times = Recipe(training, data.points).times[:steps]
    arrays: Arrays = {"times": times}

    def squeeze(values: NDArray) -> NDArray:
        return values[..., 0] if data.scalar_output else values

    def curves(prefix: str, f: NDArray, targets: NDArray | None) -> None:
        arrays[f"{prefix}predictions"] = squeeze(f.mean(0))
        error = standard_error(f)
        if error is not None:
            arrays[f"{prefix}predictions_standard_error"] = squeeze(error)
        if targets is None:
            return
        loss = LOSSES[training.loss].reported(torch.tensor(f), torch.tensor(targets)).numpy()
        arrays[f"{prefix}loss"] = loss.mean(0)
        error = standard_error(loss)
        if error is not None:
            arrays[f"{prefix}loss_standard_error"] = error
        if solution.delay is not None and steps > 1:
            # A delay tau changes a curve by its slope times tau.
            slope = np.abs(np.gradient(arrays[f"{prefix}loss"], times))
            arrays[f"{prefix}loss_truncation_error"] = slope * solution.delay

    curves("", predictions[:, :, : data.points], data.targets)
    if data.test_points:
        curves("test_", predictions[:, :, data.points :], data.test_targets)
    return arrays


def _kernel_arrays(problem: Problem, solution: Solution) -> Arrays:
    points = problem.data.points
    times = len(solution.kernel_steps)
    rounding = 1e-6 if problem.method.dtype == "float32" else 1e-13
    resolution = max(solution.kernel_resolution, rounding)
    arrays: Arrays = {"kernel_times": np.array(solution.kernel_steps)}
    for name, layers in (("phi", solution.phi), ("g", solution.g)):
        for layer in range(1, len(layers) + 1):
            # Taken out one by one: of a long solve, they are most of the memory.
            members = layers.pop(0)[:, :, :points].astype(problem.method.dtype, copy=False)
            dense = times * points * members.shape[3] <= MAX_KERNEL_ENTRIES
            if members.shape[3] == 1:
                members = members[:, :, :, 0]
            factor = mean_factor(members)
            if dense:
                arrays[f"{name}_{layer}"] = np.tensordot(factor, factor, axes=(-1, -1))
                if len(members) > 1:
                    shape = members.shape[2:-1]
                    flat = members.reshape(*members.shape[:2], -1, members.shape[-1])
                    equal_time = (flat @ flat.mT).reshape(*members.shape[:2], *shape, *shape)
                    arrays[f"{name}_{layer}_standard_error"] = _error(equal_time)
            else:
                arrays[f"{name}_{layer}_factor"] = compress(factor, resolution)
    if solution.ntk is not None:
        one_output = problem.data.outputs == 1
        ntk = solution.ntk.astype(problem.method.dtype, copy=False)
        arrays["ntk"] = ntk[:, :, 0, :, 0] if one_output else ntk
        if solution.ntk_standard_error is not None:
            error = solution.ntk_standard_error
            arrays["ntk_standard_error"] = error[:, :, 0, :, 0] if one_output else error
    return arrays


def _error(members: NDArray) -> NDArray:
    error = standard_error(members)
    assert error is not None
    return error
