"""What goes together: which options a method has a theory for, which targets a loss, which sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dmft_schema import limits
from dmft_schema.closing import KernelEntries, NotClosed, check_closed
from dmft_schema.methods import FiniteWidthMethod, Method
from dmft_schema.network import BaseNetwork, LayeredNetwork
from dmft_schema.outputs import Outputs
from dmft_schema.shapes import Shape, ShapeError
from dmft_schema.sizes import Sizes
from dmft_schema.training import Training

KINKED_ACTIVATIONS = ("relu",)
"""Activations whose phi'' is not a function."""


class Asked(Protocol):
    """What features are read off: a request, or the engine's problem."""

    @property
    def network(self) -> BaseNetwork: ...

    @property
    def training(self) -> Training: ...

    @property
    def outputs(self) -> Outputs: ...


class SolveAsked(Asked, Protocol):
    """A request, or the engine's problem."""

    @property
    def method(self) -> Method: ...


@dataclass(frozen=True)
class Feature:
    """An option that not every method has a theory for.

    Attributes:
        field: where a request asks for it, as users see it.
        used: whether a request asks for it.
    """

    field: str
    used: Callable[[Asked], bool]


def _scaled(network: BaseNetwork) -> bool:
    if isinstance(network, LayeredNetwork):
        return network.weight_scales is not None
    if getattr(network, "weight_scales", None) is not None:
        return True
    return any(getattr(block, "weight_scale", 1.0) != 1 for block in network.all_blocks)


FEATURES: dict[str, Feature] = {
    "nonlinear": Feature(
        "a network.activation other than linear", lambda r: r.network.activations != {"linear"}
    ),
    "kinks": Feature(
        "network.activation relu (its phi'' is no function)",
        lambda r: bool(r.network.activations & set(KINKED_ACTIVATIONS)),
    ),
    "residual": Feature("network.architecture residual", lambda r: r.network.architecture == "residual"),
    "composed": Feature(
        "network.architecture other than mlp and residual",
        lambda r: not isinstance(r.network, LayeredNetwork),
    ),
    "scales": Feature("network.weight_scales", lambda r: _scaled(r.network)),
    "biases": Feature(
        "network.bias_scale",
        lambda r: any(getattr(block, "bias_scale", 0.0) > 0 for block in r.network.all_blocks),
    ),
    "lazy": Feature("network.gamma0 0", lambda r: r.network.gamma0 == 0),
    "momentum": Feature("training.momentum", lambda r: r.training.momentum > 0),
    "weight_decay": Feature("training.weight_decay", lambda r: r.training.weight_decay > 0),
    "flow": Feature("training.dynamics gradient_flow", lambda r: r.training.dynamics == "gradient_flow"),
    "feedback": Feature(
        "training.backward_rule other than backpropagation",
        lambda r: r.training.backward_rule != "backpropagation",
    ),
    "direct_feedback": Feature(
        "training.backward_rule direct_feedback_alignment",
        lambda r: r.training.backward_rule == "direct_feedback_alignment",
    ),
    "responses": Feature("outputs.responses", lambda r: r.outputs.responses),
    "fields": Feature("outputs.field_times", lambda r: bool(r.outputs.field_times)),
}

NOT_ALGEBRAIC = {
    "nonlinear",
    "residual",
    "composed",
    "scales",
    "biases",
    "momentum",
    "weight_decay",
    "flow",
    "feedback",
}

UNSUPPORTED: dict[str, frozenset[str]] = {
    "dmft": frozenset(),
    "alternating": frozenset(
        {"kinks", "residual", "composed", "lazy", "momentum", "weight_decay", "flow", "feedback", "fields"}
    ),
    "linear": frozenset(NOT_ALGEBRAIC | {"fields"}),
    "gradient_independence": frozenset({"responses", "feedback"}),
    "perturbation": frozenset(
        # With kinks, kernels change as |gamma0|: there is no order gamma0^2 that leads.
        {"kinks", "composed", "momentum", "weight_decay", "flow", "feedback", "responses", "fields"}
    ),
    "static_ntk": frozenset({"weight_decay", "feedback", "responses", "fields"}),
    "finite_width": frozenset({"lazy", "responses"}),
}
"""Method -> features it has no place for."""

CONFLICTS = (
    ("responses", "kinks", "B needs phi''"),
    ("responses", "residual", "they are defined for the layers of an mlp"),
    ("responses", "composed", "they are defined for the layers of an mlp"),
    ("feedback", "composed", "fixed ways back are defined for the layers of mlp and residual"),
    ("responses", "feedback", "matrices with a fixed way back have none"),
    ("residual", "direct_feedback", "the skips would carry errors back besides"),
    ("flow", "momentum", "momentum is a property of finite steps"),
)
"""Pairs of features that exclude each other, and why."""

INSTEAD = {
    "composed": "use dmft, gradient_independence, finite_width or static_ntk",
    "lazy": "use static_ntk for the lazy limit, or a small gamma0",
    "weight_decay": "static_ntk keeps the kernel fixed, which weight decay changes; use dmft with gamma0 > 0",
    "feedback": "use dmft or finite_width",
    "responses": "use dmft, alternating or linear",
    "fields": "use dmft or finite_width",
}


def has_algebraic_theory(asked: Asked) -> bool:
    """Whether the algebraic equations of deep linear networks (theory section 4) apply as they stand."""
    return not any(FEATURES[feature].used(asked) for feature in NOT_ALGEBRAIC)


def check_support(request: SolveAsked) -> None:
    """Refuse options that the request's method has no theory for, and options at odds with each other.

    Raises:
        ValueError: naming the option, and what to use instead.
    """
    name, training = request.method.name, request.training
    lazily = UNSUPPORTED["static_ntk"] if _is_lazy(request) else frozenset()
    for feature in sorted(UNSUPPORTED[name] | lazily):
        if FEATURES[feature].used(request):
            who = f"method {name}" + (" at gamma0 = 0" if feature not in UNSUPPORTED[name] else "")
            advice = INSTEAD.get(feature, "use dmft")
            raise ValueError(f"{who} does not take {FEATURES[feature].field}; {advice}")
    for one, other, why in CONFLICTS:
        if FEATURES[one].used(request) and FEATURES[other].used(request):
            raise ValueError(f"{FEATURES[one].field} and {FEATURES[other].field} exclude each other: {why}")
    if request.outputs.kernel_positions == "all":
        kept_by = ("dmft", "gradient_independence", "finite_width")
        if isinstance(request.network, LayeredNetwork):
            raise ValueError(
                'outputs.kernel_positions "all" is for networks with positions; architecture '
                f"{request.network.architecture} has none"
            )
        if name not in kept_by or lazily:
            raise ValueError(
                f'method {name} keeps means over positions; outputs.kernel_positions "all" is for '
                f"{', '.join(kept_by)} at gamma0 > 0"
            )
    stepwise = [
        field
        for field, used in (
            ("training.momentum", training.momentum > 0),
            ("training.weight_decay", training.weight_decay > 0),
            ("training.dynamics gradient_flow", training.dynamics == "gradient_flow"),
            ("training.backward_rule", training.backward_rule != "backpropagation"),
        )
        if used
    ]
    if getattr(request.method, "readout", "exact") == "ntk" and stepwise and name != "static_ntk":
        raise ValueError(
            f'method.readout "ntk" advances f by one plain gradient step at a time, without {stepwise[0]}; '
            'use "exact"'
        )
    if training.dynamics == "gradient_flow":
        _check_flow(training)
    _check_heads(request.method, request.network.group)


def _check_heads(method: Method, group: int) -> None:
    """Populations must be whole heads."""
    if group > limits.MAX_HEAD_GROUP:
        raise ValueError(
            f"network has attention of several head sizes, whose least common multiple is {group} (limit: "
            f"{limits.MAX_HEAD_GROUP}); use one head size"
        )
    if isinstance(method, FiniteWidthMethod):
        field, neurons, parts = "method.width", method.width, 1
    else:
        parts = getattr(method, "replicas", 1)
        field, neurons = (
            "method.samples over method.replicas",
            (getattr(method, "samples", None) or 0) // parts,
        )
    if neurons % group:
        fits = max(1, round(neurons / group)) * group * parts
        raise ValueError(
            f"{field} = {neurons} neurons must be a multiple of attention's head_size, {group}: use {fits}"
        )


def _check_flow(training: Training) -> None:
    for field, used, why in (
        ("training.batch_size", training.batch_size is not None, "is a property of finite steps"),
        ("training.schedule", training.schedule != "constant", "only changes time's units"),
        ("training.loss hinge", training.loss == "hinge", "has errors that jump"),
    ):
        if used:
            raise ValueError(f"training.dynamics gradient_flow does not take {field}: it {why}")


TARGETS_OF_LOSS: dict[str, tuple[str, str]] = {
    "logistic": ("signs", "targets of +1 and -1"),
    "hinge": ("signs", "targets of +1 and -1"),
    "cross_entropy": ("simplex", "targets [P, C] with C > 1 whose rows are not negative and sum to 1"),
}
"""Loss -> the kind of targets it needs (data.py), and how to say so. Losses not named take any."""


def check_shape(request: SolveAsked, sizes: Sizes) -> None:
    """Refuse points of a shape that the network cannot take.

    Raises:
        ShapeError: naming both shapes, and the block by its place in the network.
    """
    shapes = request.network.check_shape(sizes.shape)
    rows = sizes.all_points * max(shape.count for shape in shapes)
    if rows > limits.MAX_ROWS:
        raise ShapeError(f"points x positions = {rows} rows (limit: {limits.MAX_ROWS}); use fewer points")
    if _is_lazy(request):
        _check_lazy_kernels(request.network, shapes, sizes)


def _is_lazy(request: SolveAsked) -> bool:
    """Whether static_ntk solves it."""
    name = request.method.name
    return name == "static_ntk" or (request.network.gamma0 == 0 and name != "finite_width")


def _check_lazy_kernels(network: BaseNetwork, shapes: list[Shape], sizes: Sizes) -> None:
    """Refuse networks whose kernels at t = 0 do not close, and more points than they can be had for."""
    try:
        check_closed(network.expanded(), "layers")
    except NotClosed as error:
        raise ShapeError(error.message, error.place) from None
    try:
        KernelEntries.of(network.blocks, shapes).check(sizes.all_points)
    except ValueError as error:
        raise ShapeError(str(error)) from None


def check_targets(request: SolveAsked, sizes: Sizes) -> None:
    """Refuse a loss whose targets mean something else.

    Raises:
        ValueError: saying what the loss needs.
    """
    needed = TARGETS_OF_LOSS.get(request.training.loss)
    if needed is not None and needed[0] not in sizes.target_kinds:
        raise ValueError(f"training.loss {request.training.loss} needs {needed[1]}")


def check_size(request: SolveAsked, sizes: Sizes) -> None:
    """Refuse a request whose record would be too long, or has a shape that its method has no theory for.

    Raises:
        ValueError: naming the number and the limit.
    """
    points, outputs = sizes.all_points, sizes.outputs
    size = request.training.steps * points * outputs
    if size > limits.MAX_STEP_POINTS:
        raise ValueError(
            f"training.steps x points x outputs = {request.training.steps} x {points} x {outputs} "
            f"= {size} (limit: {limits.MAX_STEP_POINTS})"
        )
    if request.method.name == "alternating" and size > limits.MAX_ALTERNATING_SIZE:
        raise ValueError(
            f"method alternating keeps kernels of training.steps x points x outputs = {size} rows densely "
            f"(limit: {limits.MAX_ALTERNATING_SIZE}); use dmft"
        )
    if request.outputs.responses:
        times = request.outputs.kernel_times
        kept = (request.training.steps if times == "all" else len(times)) * points * outputs
        if kept > limits.MAX_KERNEL_ENTRIES:
            raise ValueError(
                f"outputs.responses are kept densely: outputs.kernel_times x points x outputs = {kept} "
                f"(limit: {limits.MAX_KERNEL_ENTRIES}); choose fewer outputs.kernel_times"
            )
    if request.method.name == "perturbation":
        _check_perturbation(request, points, outputs)


def _check_perturbation(request: SolveAsked, points: int, outputs: int) -> None:
    times = request.outputs.kernel_times
    kept = (request.training.steps if times == "all" else len(times)) * points * outputs
    if set(request.outputs.kernels) & {"phi", "g"} and kept > limits.MAX_KERNEL_ENTRIES:
        raise ValueError(
            f"method perturbation keeps two-time kernels densely: outputs.kernel_times x points x outputs = "
            f"{kept} (limit: {limits.MAX_KERNEL_ENTRIES}); choose fewer "
            'outputs.kernel_times, or outputs.kernels ["ntk"]'
        )
    if has_algebraic_theory(request) and outputs == 1:
        return
    entries = request.training.steps * (points * outputs) ** 2
    if entries > limits.MAX_PERTURBATION_ENTRIES:
        raise ValueError(
            "method perturbation keeps the ntk of every step: training.steps x (points x outputs)^2 = "
            f"{entries} (limit: {limits.MAX_PERTURBATION_ENTRIES}); use fewer training.steps or points"
        )
