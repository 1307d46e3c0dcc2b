"""Names that a request can choose from. The engine implements the same; a test holds the two together."""

from __future__ import annotations

from typing import Literal

ActivationName = Literal["linear", "tanh", "relu", "erf", "gelu", "softplus", "sin", "quadratic"]
LossName = Literal["mse", "logistic", "hinge", "cross_entropy"]
ScheduleName = Literal["constant", "linear", "cosine"]
DynamicsName = Literal["gradient_descent", "gradient_flow"]
BackwardRuleName = Literal["backpropagation", "feedback_alignment", "direct_feedback_alignment"]
KernelName = Literal["phi", "g", "ntk"]

PaddingName = Literal["same", "valid", "circular"]
NormaliseName = Literal["rms", "layer"]
ScoresName = Literal["sqrt", "linear"]
PositionsName = Literal["mean", "flatten", "last"]
