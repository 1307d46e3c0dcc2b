"""What a server can be asked for: read off the request models, so it cannot disagree with them."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, Field

from dmft_schema import limits, names
from dmft_schema import methods as method_models
from dmft_schema.base import OpenModel
from dmft_schema.blocks import BLOCKS, from_other_packages
from dmft_schema.network import ARCHITECTURES
from dmft_schema.support import FEATURES, UNSUPPORTED


class Capabilities(OpenModel):
    """GET /v1/capabilities."""

    methods: list[str]
    unsupported: dict[str, list[str]] = Field(default={})
    activations: list[str]
    architectures: list[str]
    networks: dict[str, dict[str, Any]] = Field(
        default={}, description="Architecture -> its options, each as JSON Schema has it."
    )
    blocks: dict[str, dict[str, Any]] = Field(
        default={}, description="Block of architecture composed -> its options, each as JSON Schema has it."
    )
    losses: list[str]
    dynamics: list[str]
    backward_rules: list[str] = Field(default=[])
    schedules: list[str]
    readouts: list[str]
    kernels: list[str]
    dtypes: list[str]
    limits: dict[str, Any]
    version: str

    @classmethod
    def of_contract(cls, version: str, **server_limits: Any) -> Capabilities:
        """The contract's names and limits, with this server's own limits beside them."""
        from_other_packages()
        constants = {name.lower(): value for name, value in vars(limits).items() if name.isupper()}
        return cls(
            methods=[get_args(m.model_fields["name"].annotation)[0] for m in method_models.METHODS],
            unsupported={
                method: sorted(FEATURES[feature].field for feature in features)
                for method, features in UNSUPPORTED.items()
            },
            activations=list(get_args(names.ActivationName)),
            architectures=list(ARCHITECTURES),
            networks={name: _options(model) for name, model in ARCHITECTURES.items()},
            blocks={name: _options(model) for name, model in BLOCKS.items()},
            losses=list(get_args(names.LossName)),
            dynamics=list(get_args(names.DynamicsName)),
            backward_rules=list(get_args(names.BackwardRuleName)),
            schedules=list(get_args(names.ScheduleName)),
            readouts=list(get_args(method_models.ReadoutName)),
            kernels=list(get_args(names.KernelName)),
            dtypes=list(get_args(method_models.DtypeName)),
            limits=constants | server_limits,
            version=version,
        )


def _options(model: type[BaseModel]) -> dict[str, Any]:
    """What a model may be given, but its own name; of blocks inside it only that they are blocks."""
    properties = model.model_json_schema()
    properties = properties.get("properties") or properties["$defs"][model.__name__]["properties"]
    options = {}
    for name, schema in properties.items():
        if name in ("block", "architecture"):
            continue
        if "items" in schema and "discriminator" in schema["items"]:
            schema = schema | {"items": {"type": "object", "title": "block"}}
        options[name] = {key: value for key, value in schema.items() if key != "title"}
    return options
