"""What a client asks for: data, network, training, method, outputs.

Every choice a request can name stands in this module. The engine implements the same names; a test
holds the two together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from dmft_schema import limits
from dmft_schema.base import StrictModel
from dmft_schema.data import Data, UploadedData

ActivationName = Literal["linear", "tanh", "relu", "erf", "gelu", "softplus", "sin", "quadratic"]
ArchitectureName = Literal["mlp"]
LossName = Literal["mse", "logistic", "hinge", "cross_entropy"]
ScheduleName = Literal["constant", "linear", "cosine"]
DynamicsName = Literal["gradient_descent"]
KernelName = Literal["phi", "g", "ntk"]
DtypeName = Literal["float32", "float64"]
ReadoutName = Literal["exact", "ntk"]


class Network(StrictModel):
    """The network of theory section 1, in the mean-field (muP) parameterisation."""

    architecture: ArchitectureName = "mlp"
    depth: int = Field(3, ge=1, le=limits.MAX_DEPTH, description="Number of hidden layers L.")
    activation: ActivationName = "tanh"
    gamma0: float = Field(
        1.0,
        ge=0,
        le=limits.MAX_GAMMA0,
        description="Feature-learning strength; 0 is the lazy (static NTK) limit.",
    )
    weight_scales: list[Annotated[float, Field(gt=0, le=limits.MAX_SCALE)]] | None = Field(
        None,
        description="sigma_0 .. sigma_L: layer l computes sigma_l W^l, W^l of unit variance. null: all 1.",
    )
    bias_scale: float = Field(
        0.0,
        ge=0,
        le=limits.MAX_SCALE,
        description="sigma_b: every hidden layer adds sigma_b b^l, b^l trained, of unit variance. 0: none.",
    )

    @model_validator(mode="after")
    def _one_scale_for_each_matrix(self) -> Network:
        if self.weight_scales is not None and len(self.weight_scales) != self.depth + 1:
            raise ValueError(
                f"weight_scales needs depth + 1 = {self.depth + 1} numbers, for W^0 to W^{self.depth}; "
                f"got {len(self.weight_scales)}"
            )
        return self


class Training(StrictModel):
    """Gradient descent on the mean loss, from t = 0 to t = steps - 1 (theory section 2, options)."""

    loss: LossName = "mse"
    dynamics: DynamicsName = "gradient_descent"
    learning_rate: float = Field(0.1, gt=0, le=limits.MAX_LEARNING_RATE)
    steps: int = Field(
        100, ge=1, le=limits.MAX_STEPS, description="Number of recorded times T, t = 0 included."
    )
    schedule: ScheduleName = Field(
        "constant", description="How the learning rate goes on: constant, or to 0 at t = steps."
    )
    momentum: float = Field(0.0, ge=0, lt=1, description="mu of heavy-ball momentum.")
    weight_decay: float = Field(
        0.0, ge=0, le=limits.MAX_WEIGHT_DECAY, description="lambda; every parameter decays, biases too."
    )
    batch_size: int | None = Field(
        None, ge=1, description="Points in a step's batch; null is full batch. What does not fill one waits."
    )
    batch_seed: int = Field(0, ge=0, lt=2**32, description="Fixes the order of the batches.")


class _Revealing(StrictModel):
    """Options of the methods that reveal random matrices as training visits them (theory section 2)."""

    samples: int | None = Field(
        None,
        ge=limits.MIN_SAMPLES,
        le=limits.MAX_SAMPLES,
        description="Sampled neurons in each layer, over all replicas. null begins with "
        f"{limits.DEFAULT_SAMPLES} and doubles it when training visits more directions than those can hold.",
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
        if self.samples is not None and self.samples % self.replicas:
            raise ValueError(f"samples ({self.samples}) must be a multiple of replicas ({self.replicas})")
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


class GradientIndependenceMethod(_Revealing):
    """The approximation A = B = 0. Deep linear networks are solved exactly, without samples."""

    name: Literal["gradient_independence"]
    readout: ReadoutName = Field(
        "ntk", description="ntk is the approximation of the paper; exact reads f off the approximate fields."
    )


class PerturbationMethod(StrictModel):
    """Leading order in gamma0^2 about the lazy limit, in closed form, for deep linear networks."""

    name: Literal["perturbation"]
    dtype: Literal["float64"] = "float64"


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
    | LinearMethod
    | GradientIndependenceMethod
    | PerturbationMethod
    | StaticNtkMethod
    | FiniteWidthMethod,
    Field(discriminator="name"),
]
METHODS = (
    DmftMethod,
    LinearMethod,
    GradientIndependenceMethod,
    PerturbationMethod,
    StaticNtkMethod,
    FiniteWidthMethod,
)


def has_algebraic_theory(network: Network, training: Training) -> bool:
    """Whether the algebraic equations of deep linear networks (theory section 4) apply as they stand."""
    plain = not (training.momentum or training.weight_decay or network.bias_scale or network.weight_scales)
    return plain and network.activation == "linear"


class Outputs(StrictModel):
    """Which arrays come back beside loss and predictions."""

    kernels: list[KernelName] = Field(
        default=["phi", "g", "ntk"], description="phi and g at two times, ntk at equal times."
    )
    kernel_times: Literal["all"] | list[int] = Field(
        "all", description="Steps at which kernels are kept; negative counts from the end."
    )

    @field_validator("kernels")
    @classmethod
    def _each_once(cls, kernels: list[str]) -> list[str]:
        return sorted(set(kernels))


class SolveRequest(StrictModel):
    """One solve: the body of POST /v1/solves."""

    data: Data
    network: Network = Network()
    training: Training = Training()
    method: Method = DmftMethod(name="dmft")
    outputs: Outputs = Outputs()
    name: str | None = Field(None, max_length=limits.MAX_NAME_LENGTH)
    tags: list[Annotated[str, Field(min_length=1, max_length=limits.MAX_TAG_LENGTH)]] = Field(
        default=[], max_length=limits.MAX_TAGS
    )
    priority: int = Field(
        0,
        ge=-limits.MAX_PRIORITY,
        le=limits.MAX_PRIORITY,
        description="Order among your own queued jobs; higher first.",
    )
    reuse: bool = Field(True, description="Accept a finished result of the same request.")

    @model_validator(mode="before")
    @classmethod
    def _default_method(cls, value: Any) -> Any:
        # {"method": {"tolerance": 1e-3}} means dmft, the default, with one option changed.
        method = value.get("method") if isinstance(value, dict) else None
        if isinstance(method, dict) and "name" not in method:
            return {**value, "method": {"name": "dmft", **method}}
        return value

    @model_validator(mode="after")
    def _fits(self) -> SolveRequest:
        if self.method.name == "finite_width" and self.network.gamma0 == 0:
            raise ValueError(
                "network.gamma0 must be above 0 for method finite_width: a finite network's output "
                "is divided by gamma0. Use static_ntk for the lazy limit, or a small gamma0"
            )
        self._check_options()
        if isinstance(self.outputs.kernel_times, list):
            if not self.outputs.kernel_times:
                raise ValueError('outputs.kernel_times must be "all" or name at least one step')
            for step in self.outputs.kernel_times:
                if not -self.training.steps <= step < self.training.steps:
                    raise ValueError(
                        f"outputs.kernel_times names step {step}, but there are {self.training.steps} steps"
                    )
        if not isinstance(self.data, UploadedData):
            check_size(self, self.data.points + self.data.test_points, self.data.outputs)
            check_targets(self, self.data.target_kinds)
        return self

    def _check_options(self) -> None:
        """Refuse options that a method's theory has no place for."""
        training, network = self.training, self.network
        name = self.method.name
        if name in ("linear", "perturbation") and not has_algebraic_theory(network, training):
            raise ValueError(
                f"method {name} is for network.activation linear, without training.momentum, "
                "training.weight_decay, network.bias_scale and network.weight_scales; use dmft for others"
            )
        if training.weight_decay and (name == "static_ntk" or network.gamma0 == 0):
            raise ValueError(
                "training.weight_decay changes the kernel, which static_ntk (and gamma0 = 0) keeps fixed; "
                "use dmft with a small network.gamma0"
            )
        if getattr(self.method, "readout", "exact") == "ntk" and (training.momentum or training.weight_decay):
            raise ValueError(
                'method.readout "ntk" advances f by one gradient step at a time, without training.momentum '
                'or training.weight_decay; use "exact"'
            )

    def content_hash(self, *numerics: str) -> str:
        """SHA-256 over all that the numbers of the result depend on, and `numerics` besides.

        Name, tags, priority and reuse are left out: they change nothing that is computed.
        """
        content = self.model_dump(mode="json", exclude={"name", "tags", "priority", "reuse"})
        text = json.dumps([content, *numerics], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


TARGETS_OF_LOSS: dict[str, tuple[str, str]] = {
    "logistic": ("signs", "targets of +1 and -1"),
    "hinge": ("signs", "targets of +1 and -1"),
    "cross_entropy": ("simplex", "targets [P, C] with C > 1 whose rows are not negative and sum to 1"),
}
"""Loss -> the kind of targets it needs (data.py), and how to say so. Losses not named take any."""


def check_targets(request: SolveRequest, kinds: Collection[str]) -> None:
    """Refuse a loss whose targets mean something else.

    Raises:
        ValueError: saying what the loss needs.
    """
    needed = TARGETS_OF_LOSS.get(request.training.loss)
    if needed is not None and needed[0] not in kinds:
        raise ValueError(f"training.loss {request.training.loss} needs {needed[1]}")


def check_size(request: SolveRequest, points: int, outputs: int) -> None:
    """Refuse a request whose record would be too long, or has a shape that its method has no theory for.

    Raises:
        ValueError: naming the number and the limit.
    """
    size = request.training.steps * points * outputs
    if size > limits.MAX_STEP_POINTS:
        raise ValueError(
            f"training.steps x points x outputs = {request.training.steps} x {points} x {outputs} "
            f"= {size} (limit: {limits.MAX_STEP_POINTS})"
        )
    if request.method.name == "perturbation":
        _check_perturbation(request, points, outputs)


def _check_perturbation(request: SolveRequest, points: int, outputs: int) -> None:
    if outputs > 1:
        raise ValueError(f"method perturbation takes targets with one output; got {outputs}")
    times = request.outputs.kernel_times
    kept = request.training.steps if times == "all" else len(times)
    if set(request.outputs.kernels) & {"phi", "g"} and kept * points > limits.MAX_KERNEL_ENTRIES:
        raise ValueError(
            f"method perturbation keeps two-time kernels densely: outputs.kernel_times x points = {kept} x "
            f"{points} = {kept * points} (limit: {limits.MAX_KERNEL_ENTRIES}); choose fewer "
            'outputs.kernel_times, or outputs.kernels ["ntk"]'
        )
