"""The strict base of every model, and arrays as field types."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from dmft_schema.arrays import FloatArray, finite_array
from dmft_schema.scalars import without_conversions

FROM_ANY_VERSION = {"from_any_version": True}
"""Validation context of whoever reads what another version may have written: unknown fields are left out."""


class StrictModel(BaseModel):
    """A model that refuses unknown fields and non-finite numbers.

    A misspelt option is an error, never a silent default. (Not so where a client reads what a newer server
    has written: see FROM_ANY_VERSION.)
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_the_unknown(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, dict) and (info.context or {}).get("from_any_version"):
            return {key: known for key, known in value.items() if key in cls.model_fields}
        return value

    def __eq__(self, other: object) -> bool:
        # Field by field would ask arrays for one truth value.
        return type(self) is type(other) and self.model_dump_json() == other.model_dump_json()

    __hash__ = None  # type: ignore[assignment]

    @model_validator(mode="before")
    @classmethod
    def _without_conversions(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        fields = cls.model_fields
        return {
            name: without_conversions(given, fields[name].annotation) if name in fields else given
            for name, given in value.items()
        }


class OpenModel(BaseModel):
    """A model of answers: they may gain fields, and a client older than its server must read them still."""

    model_config = ConfigDict(extra="ignore")


Number = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "null"}]}),
]
"""A number of a result. What JSON cannot hold (NaN, infinities) is written as null and read as NaN."""


def _matrix(value: Any) -> FloatArray:
    return finite_array(value, (2,))


def _vector_or_matrix(value: Any) -> FloatArray:
    return finite_array(value, (1, 2))


_ROW = {"type": "array", "items": {"type": "number"}, "minItems": 1}
_ROWS = {"type": "array", "items": _ROW, "minItems": 1}
_to_list = PlainSerializer(lambda array: array.tolist(), return_type=list)

Matrix = Annotated[FloatArray, BeforeValidator(_matrix), _to_list, WithJsonSchema(_ROWS)]
"""A finite float64 array with two axes; JSON: a list of rows."""

Targets = Annotated[
    FloatArray,
    BeforeValidator(_vector_or_matrix),
    _to_list,
    WithJsonSchema({"anyOf": [_ROW, _ROWS]}),
]
"""Finite targets, shape [P] (one output) or [P, C] (C outputs)."""
