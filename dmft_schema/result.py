"""The result of a solve as JSON; its large arrays travel in the NPZ (see kernels.py)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from dmft_schema.base import Number, OpenModel


class Summary(OpenModel):
    """Scalars that a table shows."""

    final_loss: float | None = Field(description="At the last recorded time; null if none was reached.")
    kernel_target_alignment: float | None = Field(
        None, description="y^T K y / (|y|^2 |K|_F) of the final NTK (theory section 6)."
    )
    kernel_movement: list[Number] | None = Field(
        None,
        description="|Phi^l(end) - Phi^l(start)|_F / |Phi^l(start)|_F for l = 1..L, from the first to "
        "the last kernel time.",
    )
    effective_dimension: list[Number] | None = Field(
        None, description="(tr K)^2 / tr K^2 of Phi^l at the last kernel time, l = 1..L: between 1 and P."
    )


class Diagnostics(OpenModel):
    """How the numbers came about."""

    method: str
    samples: int | None = None
    replicas: int | None = None
    basis_sizes: dict[str, int] = Field(
        default={}, description="Directions held at the end for each field, e.g. phi_1, g_2."
    )
    truncation_error: float | None = Field(
        None, description="Largest entry of loss_truncation_error over the trajectory."
    )
    rounding_error: float | None = Field(
        None, description="Largest entry of loss_rounding_error over the trajectory."
    )
    kernel_error: float | None = Field(
        None,
        description="Estimated largest error of an entry of the kernels at initialisation, from rounding and "
        "quadrature, over sqrt(K_aa K_bb) (static_ntk, perturbation); null for other methods.",
    )
    wall_seconds: Number
    device: str
    dtype: str = Field(description="As asked for; arrays are written in it.")
    computed_in: str | None = Field(
        None,
        description="Dtype of the computation: float64 where float32 would lose small updates.",
    )
    seed: int | None = None
    converged: bool | None = Field(
        None, description="Whether the iteration of `alternating` reached its tolerance; null for others."
    )
    versions: dict[str, str] = Field(default={})
    notes: list[str] = Field(default=[])


class ResultDocument(OpenModel):
    """GET /v1/solves/{id}/result. T recorded times, P training points, P' test points, C outputs.

    A failed or cancelled solve returns the trajectory that it had reached, with `complete` false.
    """

    complete: bool = True
    times: list[Number] = Field(description="[T] learning time eta * t.")
    loss: list[Number] = Field(description="[T] mean over points of (f - y)^2, summed over outputs.")
    loss_standard_error: list[Number] | None = Field(
        None, description="[T] standard error over replicas or ensemble members."
    )
    loss_truncation_error: list[Number] | None = Field(
        None, description="[T] estimated bound of the truncation error (theory section 2)."
    )
    loss_rounding_error: list[Number] | None = Field(
        None, description="[T] estimated error by rounding (theory section 2)."
    )
    predictions: list[Any] = Field(description="[T, P], or [T, P, C] when C > 1.")
    predictions_standard_error: list[Any] | None = None
    test_loss: list[Number] | None = None
    test_loss_standard_error: list[Number] | None = None
    test_loss_truncation_error: list[Number] | None = None
    test_loss_rounding_error: list[Number] | None = None
    test_predictions: list[Any] | None = None
    test_predictions_standard_error: list[Any] | None = None
    summary: Summary
    diagnostics: Diagnostics
    manifest: dict[str, Any] = Field(
        default={},
        description="Checksums, shapes, dtypes, invariants checked, citation, request, id of the solve.",
    )


class KernelSlice(OpenModel):
    """GET /v1/solves/{id}/kernels/{kernel}: one kernel or response between two times."""

    kernel: str
    layer: int | None = None
    t: int = Field(description="Step of the first time.")
    s: int = Field(description="Step of the second time.")
    values: list[Any] = Field(description="[P, P], or [P, C, P, C] for g and ntk with C > 1 outputs.")
