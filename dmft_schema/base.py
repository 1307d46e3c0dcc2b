"""The strict base of every model, and arrays as field types."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

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


def fields_of(model: BaseModel) -> Iterator[tuple[str, Any]]:
    """Names and values of a model's fields as they are written: without those that say to leave them out.

    An option of a later version leaves its default out, so that requests of before are written as they were.
    """
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if field.exclude_if is None or not field.exclude_if(value):
            yield name, value


def refused(message: str, place: tuple[str | int, ...]) -> ValidationError:
    """An error at a place below the model that raises it."""
    error = InitErrorDetails(
        type=PydanticCustomError("refused", "{message}", {"message": message}), loc=place, input=None
    )
    return ValidationError.from_exception_data("request", [error])


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


def _inputs(value: Any) -> FloatArray:
    return finite_array(value, (2, 3, 4))


def _vector_or_matrix(value: Any) -> FloatArray:
    return finite_array(value, (1, 2))


_ROW = {"type": "array", "items": {"type": "number"}, "minItems": 1}
_ROWS = {"type": "array", "items": _ROW, "minItems": 1}
_SEQUENCES = {"type": "array", "items": _ROWS, "minItems": 1}
_IMAGES = {"type": "array", "items": _SEQUENCES, "minItems": 1}
_to_list = PlainSerializer(lambda array: array.tolist(), return_type=list)

Matrix = Annotated[FloatArray, BeforeValidator(_matrix), _to_list, WithJsonSchema(_ROWS)]
"""A finite float64 array with two axes; JSON: a list of rows."""

Inputs = Annotated[
    FloatArray,
    BeforeValidator(_inputs),
    _to_list,
    WithJsonSchema({"anyOf": [_ROWS, _SEQUENCES, _IMAGES]}),
]
"""Finite inputs, shape [P, D], [P, times, D] or [P, H, W, C]."""

Targets = Annotated[
    FloatArray,
    BeforeValidator(_vector_or_matrix),
    _to_list,
    WithJsonSchema({"anyOf": [_ROW, _ROWS]}),
]
"""Finite targets, shape [P] (one output) or [P, C] (C outputs)."""
