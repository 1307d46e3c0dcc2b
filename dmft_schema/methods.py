"""The methods a request can name, each with its options. One class here (and one in the engine) adds one."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dmft_schema import limits
from dmft_schema.base import StrictModel

DtypeName = Literal["float32", "float64"]
ReadoutName = Literal["exact", "ntk"]


def _check_divisible(samples: int, replicas: int) -> None:
    if samples % replicas:
        raise ValueError(f"samples ({samples}) must be a multiple of replicas ({replicas})")


class _Revealing(StrictModel):
    """Options of the methods that reveal random matrices as training visits them (theory section 2)."""

    samples: int | None = Field(
        None,
        ge=limits.MIN_SAMPLES,
        le=limits.MAX_SAMPLES,
        description="Sampled neurons in each layer, over all replicas. null begins with "
        f"{limits.DEFAULT_SAMPLES}, more for many points, and doubles them when training visits more "
        "directions than those can hold.",
    )
    replicas: int = Field(
        4,
        ge=2,
        le=limits.MAX_REPLICAS,
        description="Independent populations that the samples are split into; error bars come from them.",
    )
    seed: int = Field(0, ge=0, lt=2**32)
    tolerance: float = Field(
        0.01,
        ge=1e-10,
        le=0.1,
        description="Relative norm above which a new direction of W(0) is revealed.",
    )
    dtype: DtypeName = "float32"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.samples is not None:
            _check_divisible(self.samples, self.replicas)
        if self.dtype == "float32" and self.tolerance < limits.MIN_FLOAT32_TOLERANCE:
            raise ValueError(
                f"tolerance {self.tolerance:g} is below what float32 resolves (limit: "
                f'{limits.MIN_FLOAT32_TOLERANCE:g}); set dtype to "float64"'
            )
        return self


class DmftMethod(_Revealing):
    """The infinite-width limit itself."""

    name: Literal["dmft"]
    readout: ReadoutName = Field(
        "exact",
        description="exact: finite-step gradient descent; ntk: f advanced with the NTK (as eta -> 0).",
    )


class AlternatingMethod(StrictModel):
    """The paper's Algorithm 1: alternating Monte Carlo between kernels and single-neuron fields."""

    name: Literal["alternating"]
    samples: int = Field(
        4096,
        ge=limits.MIN_SAMPLES,
        le=limits.MAX_SAMPLES,
        description="Neurons sampled in each layer and iteration, over all replicas.",
    )
    replicas: int = Field(
        4, ge=2, le=limits.MAX_REPLICAS, description="Independent iterations; error bars come from them."
    )
    seed: int = Field(0, ge=0, lt=2**32)
    max_iterations: int = Field(50, ge=1, le=limits.MAX_ITERATIONS)
    tolerance: float = Field(
        1e-3,
        ge=1e-5,
        le=0.1,
        description="Converged when no kernel moves by more than this, relative to its norm.",
    )
    damping: float = Field(0.0, ge=0, lt=1, description="Part of the old kernels kept in each iteration.")
    dtype: DtypeName = "float32"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_divisible(self.samples, self.replicas)
        return self


class GradientIndependenceMethod(_Revealing):
    """The approximation A = B = 0. Deep linear networks are solved exactly, without samples."""

    name: Literal["gradient_independence"]
    readout: ReadoutName = Field(
        "ntk", description="ntk is the approximation of the paper; exact reads f off the approximate fields."
    )


class PerturbationMethod(StrictModel):
    """Leading order in gamma0^2 about the lazy limit.

    Deep linear networks with one output are solved in closed form, without samples.
    """

    name: Literal["perturbation"]
    samples: int = Field(
        8192,
        ge=limits.MIN_SAMPLES,
        le=limits.MAX_SAMPLES,
        description="Sampled neurons in each layer, over all replicas.",
    )
    replicas: int = Field(4, ge=2, le=limits.MAX_REPLICAS)
    seed: int = Field(0, ge=0, lt=2**32)
    dtype: Literal["float64"] = "float64"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_divisible(self.samples, self.replicas)
        return self


class StaticNtkMethod(StrictModel):
    """The lazy limit gamma0 -> 0: training with the kernel at initialisation. Deterministic."""

    name: Literal["static_ntk"]
    dtype: DtypeName = "float64"


class LinearMethod(StrictModel):
    """Deep linear networks, exactly, by the algebraic equations of theory section 4."""

    name: Literal["linear"]
    readout: ReadoutName = "exact"
    dtype: Literal["float64"] = "float64"


class FiniteWidthMethod(StrictModel):
    """An ensemble of dense networks of one width, trained as they are."""

    name: Literal["finite_width"]
    width: int = Field(500, ge=1, le=limits.MAX_WIDTH, description="Neurons N in each hidden layer.")
    ensemble: int = Field(
        4, ge=1, le=limits.MAX_ENSEMBLE, description="Networks trained, each from its own seed."
    )
    seed: int = Field(0, ge=0, lt=2**32)
    dtype: DtypeName = "float32"


Method = Annotated[
    DmftMethod
    | AlternatingMethod
    | LinearMethod
    | GradientIndependenceMethod
    | PerturbationMethod
    | StaticNtkMethod
    | FiniteWidthMethod,
    Field(discriminator="name"),
]
METHODS = (
    DmftMethod,
    AlternatingMethod,
    LinearMethod,
    GradientIndependenceMethod,
    PerturbationMethod,
    StaticNtkMethod,
    FiniteWidthMethod,
)
