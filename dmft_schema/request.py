"""What a client asks for: data, network, training, method, outputs.

Every choice a request can name stands in this module. The engine implements the same names; a test
holds the two together.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from dmft_schema import limits
from dmft_schema.base import StrictModel
from dmft_schema.data import Data, UploadedData
from dmft_schema.large import canonical
from dmft_schema.methods import DmftMethod, Method
from dmft_schema.support import check_size, check_support, check_targets

ActivationName = Literal["linear", "tanh", "relu", "erf", "gelu", "softplus", "sin", "quadratic"]
ArchitectureName = Literal["mlp", "residual"]
LossName = Literal["mse", "logistic", "hinge", "cross_entropy"]
ScheduleName = Literal["constant", "linear", "cosine"]
DynamicsName = Literal["gradient_descent", "gradient_flow"]
BackwardRuleName = Literal["backpropagation", "feedback_alignment", "direct_feedback_alignment"]
KernelName = Literal["phi", "g", "ntk"]


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
    branch_scale: float = Field(
        1.0,
        gt=0,
        le=limits.MAX_SCALE,
        description="beta of architecture residual: h^{l+1} = h^l + (beta / sqrt(L)) W^l phi(h^l).",
    )
    weight_scales: list[Annotated[float, Field(gt=0, le=limits.MAX_SCALE)]] | None = Field(
        None,
        max_length=limits.MAX_DEPTH + 1,
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
        if self.branch_scale != 1 and self.architecture != "residual":
            raise ValueError(f"branch_scale is for architecture residual; got it with {self.architecture}")
        return self


class Training(StrictModel):
    """Gradient descent on the mean loss, from t = 0 to t = steps - 1 (theory section 2, options)."""

    loss: LossName = "mse"
    dynamics: DynamicsName = Field(
        "gradient_descent",
        description="gradient_flow integrates the limit of small steps adaptively; it is recorded at the "
        "same times, learning_rate x step.",
    )
    flow_tolerance: float = Field(
        1e-4, ge=1e-9, le=1e-1, description="Error allowed in a step of gradient_flow, relative."
    )
    backward_rule: BackwardRuleName = Field(
        "backpropagation",
        description="What carries errors back: the transposed weights, or fixed random ones.",
    )
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
        check_support(self)
        times = self.outputs.kernel_times
        if times == []:
            raise ValueError('outputs.kernel_times must be "all" or name at least one step')
        self._check_steps("outputs.kernel_times", [] if times == "all" else times)
        self._check_steps("outputs.field_times", self.outputs.field_times)
        if not isinstance(self.data, UploadedData):
            check_size(self, self.data.points + self.data.test_points, self.data.outputs)
            check_targets(self, self.data.target_kinds)
        return self

    def _check_steps(self, field: str, steps: list[int]) -> None:
        count = self.training.steps
        for step in steps:
            if not -count <= step < count:
                raise ValueError(f"{field} names step {step}, but there are {count} steps")

    def content_hash(self, *numerics: str) -> str:
        """SHA-256 over all that the numbers of the result depend on, and `numerics` besides.

        Name, tags, priority and reuse are left out: they change nothing that is computed.
        """
        left_out = {"name", "tags", "priority", "reuse"}
        content = {name: getattr(self, name) for name in type(self).model_fields if name not in left_out}
        digest = hashlib.sha256(b"[")
        for piece in canonical(content):
            digest.update(piece)
        for name in numerics:
            digest.update(b"," + json.dumps(name).encode())
        digest.update(b"]")
        return digest.hexdigest()
