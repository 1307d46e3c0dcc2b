"""The request of a run that goes on where another ended."""

from __future__ import annotations

from dmft_schema.methods import DmftMethod, GradientIndependenceMethod
from dmft_schema.request import SolveRequest


def extended(request: SolveRequest, steps: int, samples: int | None = None) -> SolveRequest:
    """A request for more steps whose run passes through all that the run of `request` recorded.

    Outputs keep the times that were kept, named from the beginning, and add those that count from the end.

    Args:
        request: of the run before.
        steps: more than that has.
        samples: what the run before had (diagnostics.samples), where its request left the number open: a
            longer run might begin with more.

    Raises:
        ValueError: `steps` are not more; or the longer request is not valid.
    """
    before = request.training.steps
    if steps <= before:
        raise ValueError(
            f"training.steps must be more than the {before} that the run before had, not {steps}"
        )

    def times(named: list[int]) -> list[int]:
        ends = {step + steps for step in named if step < 0}
        return sorted({step % before for step in named} | {step for step in ends if step >= before})

    wanted = request.outputs
    outputs = {
        "kernel_times": "all" if wanted.kernel_times == "all" else times(wanted.kernel_times),
        "field_times": times(wanted.field_times),
    }
    longer = request.model_dump() | {
        "training": request.training.model_dump() | {"steps": steps},
        "outputs": wanted.model_dump() | outputs,
    }
    method = request.method
    if isinstance(method, DmftMethod | GradientIndependenceMethod) and method.samples is None and samples:
        longer["method"] = method.model_dump() | {"samples": samples}
    return SolveRequest.model_validate(longer)
