"""How a network is trained."""

from __future__ import annotations

from pydantic import Field

from dmft_schema import limits
from dmft_schema.base import StrictModel
from dmft_schema.names import BackwardRuleName, DynamicsName, LossName, ScheduleName


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
