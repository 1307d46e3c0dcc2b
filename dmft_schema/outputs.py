"""What comes back."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from dmft_schema import limits
from dmft_schema.base import StrictModel
from dmft_schema.names import KernelName


class Outputs(StrictModel):
    """Which arrays come back beside loss and predictions."""

    kernels: list[KernelName] = Field(
        default=["g", "ntk", "phi"],
        max_length=limits.MAX_KERNEL_NAMES,
        description="phi and g at two times, ntk at equal times.",
    )
    kernel_times: Literal["all"] | Annotated[list[int], Field(max_length=limits.MAX_STEPS)] = Field(
        "all", description="Steps at which kernels are kept; negative counts from the end."
    )
    kernel_positions: Literal["mean", "all"] = Field(
        "mean",
        exclude_if=lambda kept: kept == "mean",
        description="mean: phi and g are means over positions, [P, P]; all: between all, [P, A, P, A].",
    )
    responses: bool = Field(
        False, description="Whether the responses A^l and B^l come back, between the kernel times."
    )
    field_times: list[int] = Field(
        default=[],
        max_length=limits.MAX_FIELD_TIMES,
        description="Steps at which the fields h, z, phi(h) and g of sampled neurons come back, with a "
        "histogram over all neurons; negative counts from the end.",
    )
    field_neurons: int = Field(
        64, ge=1, le=limits.MAX_FIELD_NEURONS, description="Neurons of each layer whose fields come back."
    )

    @field_validator("kernels")
    @classmethod
    def _each_once(cls, kernels: list[str]) -> list[str]:
        return sorted(set(kernels))
