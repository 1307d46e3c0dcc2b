"""How a method's numbers become a Result: the trajectory first, then kernels and responses piece by piece.

Pieces are reported and may be cancelled. Who cancels keeps the trajectory, the pieces that were there, and
those that take no time.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dmft_engine.errors import NotFinite
from dmft_engine.model.losses import LOSSES
from dmft_engine.model.recipe import Recipe
from dmft_engine.problem import Problem
from dmft_engine.record.kernel_record import LateFactors, dense_or_factor, mean_factor
from dmft_engine.record.solution import Arrays, Result, Solution, standard_error
from dmft_engine.training.reporter import Cancelled, Reporter
from dmft_schema import Diagnostics, JobError, JobStatus
from dmft_schema.limits import MAX_KERNEL_ENTRIES
from dmft_schema.numerics import NUMERICS_VERSION

CHEAP = 2e9
"""Multiplications of a piece that is made even after the solve was cancelled: about a second."""

STOPPED = "cancelled while the result was put together: {} left out."
OVERFLOWN = "left out because not finite in {}: {}."


@dataclass(frozen=True)
class Piece:
    """Arrays that are made together.

    Attributes:
        name: of what comes out.
        cost: multiplications, about.
        make: makes them; it calls its argument every moment, which may raise Cancelled.
    """

    name: str
    cost: float
    make: Callable[[Callable[[], None]], Arrays]


def assemble(
    problem: Problem,
    solution: Solution | None,
    status: JobStatus,
    error: JobError | None,
    device: str,
    reporter: Reporter,
) -> Result:
    """Turn a method's numbers into the arrays and diagnostics that users see.

    Returns:
        A Result of the given status, or a cancelled one if a piece was left out because the caller asked to
        stop. Its wall_seconds are those of nothing yet.
    """
    arrays: Arrays = {}
    notes = [*problem.data.notes, *(solution.notes if solution else [])]
    if solution is not None and solution.truncation is not None:
        note = solution.truncation.note(solution.predictions.shape[1])
        notes += [note] if note else []
    if solution is not None and solution.predictions.shape[1]:
        arrays |= _trajectory_arrays(problem, solution) | solution.arrays
        left_out = _add_pieces(arrays, list(_pieces(problem, solution)), status, reporter)
        if left_out:
            notes.append(STOPPED.format(", ".join(left_out)))
            status = JobStatus.CANCELLED if status is JobStatus.SUCCEEDED else status
    broken = [name for name, array in arrays.items() if not _is_finite(array)]
    if broken:
        notes.append(OVERFLOWN.format(problem.method.dtype, ", ".join(broken)))
    arrays = {name: array for name, array in arrays.items() if name not in broken}
    return Result(problem, status, error, arrays, _diagnostics(problem, solution, arrays, device, notes))


def _add_pieces(arrays: Arrays, pieces: list[Piece], status: JobStatus, reporter: Reporter) -> list[str]:
    """Make the pieces. Returns the names of those left out."""
    stopped = status is not JobStatus.SUCCEEDED
    left_out = []
    reporter.assembling(len(pieces))
    for piece in pieces:
        reporter.piece(piece.name)
        stopped = stopped or reporter.stop_asked
        if stopped and piece.cost > CHEAP:
            left_out.append(piece.name)
            continue
        try:
            arrays |= piece.make(reporter.check if piece.cost > CHEAP else _nothing)
        except Cancelled:
            stopped = True
            left_out.append(piece.name)
        except NotFinite:
            arrays[piece.name] = np.array(np.nan)  # left out with the others that are not finite
    return left_out


def _nothing() -> None:
    pass


def _is_finite(array: NDArray) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _diagnostics(
    problem: Problem, solution: Solution | None, arrays: Arrays, device: str, notes: list[str]
) -> Diagnostics:
    def largest(name: str) -> float | None:
        array = arrays.get(name)
        return None if array is None or not array.size else float(array.max())

    return Diagnostics(
        method=problem.method.name,
        samples=solution.samples if solution else None,
        replicas=solution.replicas if solution else None,
        basis_sizes=solution.basis_sizes if solution else {},
        truncation_error=largest("loss_truncation_error"),
        rounding_error=largest("loss_rounding_error"),
        kernel_error=solution.kernel_error if solution else None,
        wall_seconds=0.0,
        device=device,
        dtype=problem.method.dtype,
        computed_in=(solution and solution.computed_in) or problem.method.dtype,
        seed=solution.seed if solution else None,
        converged=solution.converged if solution else None,
        versions={
            "numerics": NUMERICS_VERSION,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        notes=notes,
    )


def _trajectory_arrays(problem: Problem, solution: Solution) -> Arrays:
    data, training = problem.data, problem.training
    predictions = solution.predictions.astype(np.float64)
    steps = predictions.shape[1]
    arrays: Arrays = {"times": Recipe(training, data.points).times[:steps]}

    def squeeze(values: NDArray) -> NDArray:
        return values[..., 0] if data.scalar_output else values

    def curves(prefix: str, f: NDArray, targets: NDArray | None) -> None:
        arrays[f"{prefix}predictions"] = squeeze(f.mean(0))
        error = standard_error(f)
        if error is not None:
            arrays[f"{prefix}predictions_standard_error"] = squeeze(error)
        if targets is None:
            return
        kind, outputs, wanted = LOSSES[training.loss], torch.tensor(f), torch.tensor(targets)
        loss = kind.reported(outputs, wanted).numpy()
        arrays[f"{prefix}loss"] = loss.mean(0)
        error = standard_error(loss)
        if error is not None:
            arrays[f"{prefix}loss_standard_error"] = error
        delta = kind.errors(outputs, wanted)
        if solution.truncation is not None:
            arrays[f"{prefix}loss_truncation_error"] = solution.truncation.of_loss(
                f.mean(0), arrays[f"{prefix}loss"], delta.square().mean(0).sqrt().numpy()
            )
        if solution.rounding is not None:
            # An error e of f changes (f - y)^2 by 2 |f - y| e + e^2.
            slope = delta.abs().sum(-1).mean(-1).mean(0).numpy()
            square = data.outputs * np.square(solution.rounding)
            arrays[f"{prefix}loss_rounding_error"] = 2 * slope * solution.rounding + square

    curves("", predictions[:, :, : data.points], data.targets)
    if data.test_points:
        curves("test_", predictions[:, :, data.points :], data.test_targets)
    return arrays


def _pieces(problem: Problem, solution: Solution) -> Iterator[Piece]:
    arrays: Arrays = {}
    if problem.outputs.kernels and solution.kernel_steps:
        arrays["kernel_times"] = np.array(solution.kernel_steps)
        if solution.ntk is not None:
            arrays["ntk"] = _of_one_output(problem, _in_dtype(problem, solution.ntk))
            if solution.ntk_standard_error is not None:
                arrays["ntk_standard_error"] = _of_one_output(problem, solution.ntk_standard_error)
        yield Piece("ntk", 0.0, lambda _: arrays)
        for name, layers in (("phi", solution.phi), ("g", solution.g)):
            for layer, factors in enumerate(layers, start=1):
                outputs = problem.data.outputs if name == "g" else 1
                yield _kernel_piece(problem, solution, f"{name}_{layer}", factors, outputs)
    for name, make in solution.later.items():
        yield Piece(name, np.inf, make)


def _of_one_output(problem: Problem, ntk: NDArray) -> NDArray:
    return ntk[:, :, 0, :, 0] if problem.data.outputs == 1 else ntk


def _in_dtype(problem: Problem, array: NDArray) -> NDArray:
    """In the dtype asked for, or as it is if that cannot hold it."""
    dtype = np.dtype(problem.method.dtype)
    held = not array.size or float(np.abs(array).max()) <= float(np.finfo(dtype).max)
    return array.astype(dtype, copy=False) if held else array


def _kernel_piece(
    problem: Problem, solution: Solution, name: str, factors: LateFactors, outputs: int
) -> Piece:
    points, times = problem.data.points, len(solution.kernel_steps)
    resolution = max(solution.kernel_resolution, 1e-6 if problem.method.dtype == "float32" else 1e-13)

    def make(check: Callable[[], None]) -> Arrays:
        members = _held_by(problem, factors.make())[:, :, :points]
        several = members.shape[3]
        if several == 1:
            members = members[:, :, :, 0]
        factor = mean_factor(members)
        if math.prod(factor.shape[:-1]) <= MAX_KERNEL_ENTRIES:
            return {name: np.tensordot(factor, factor, axes=(-1, -1))} | _errors(name, members)
        array, dense = dense_or_factor(factor, resolution, check)
        return {name: array} | _errors(name, members) if dense else {f"{name}_factor": array}

    return Piece(name, float(times * points * outputs) ** 2 * factors.width, make)


def _held_by(problem: Problem, factor: NDArray) -> NDArray:
    """A factor in the dtype asked for, or in float64 if that cannot hold the kernel."""
    largest = float(np.abs(factor).max(initial=0.0))
    dtype = np.dtype(problem.method.dtype)
    if largest**2 * factor.shape[-1] * factor.shape[0] > float(np.finfo(dtype).max):
        dtype = np.dtype(np.float64)
    return factor.astype(dtype, copy=False)


def _errors(name: str, members: NDArray) -> Arrays:
    """Standard error of a dense kernel at equal times, from the replicas' factors [R, K, P (, C), k]."""
    if len(members) == 1:
        return {}
    shape = members.shape[2:-1]
    flat = members.reshape(*members.shape[:2], int(np.prod(shape)), members.shape[-1])
    equal_time = (flat @ flat.mT).reshape(*members.shape[:2], *shape, *shape)
    error = standard_error(equal_time)
    assert error is not None
    return {f"{name}_standard_error": error}
