"""Reading the settings; what is wrong with them in one line, for whoever has to put it right."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from jobs.settings import PREFIX, Settings

STATUS = 2
"""Exit status of a command whose settings are wrong, as of one that is called wrongly."""

_LONGEST_VALUE = 100
_LIMITS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}


class SettingsError(ValueError):
    """Settings that are none: each named with its value and what is allowed, in one line."""


def load(**given: Any) -> Settings:
    """The environment's settings, with `given` ones on top.

    Raises:
        SettingsError: some are wrong.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError("; ".join(_lines(error, given))) from None


def load_or_exit() -> Settings:
    """The environment's settings; a process that cannot have them ends with STATUS, having said why."""
    try:
        return load()
    except SettingsError as error:
        print(f"dmft: {error}", file=sys.stderr)
        sys.exit(STATUS)


def _lines(error: ValidationError, given: Mapping[str, Any]) -> Iterator[str]:
    seen = set()
    for wrong in error.errors():
        name = str(wrong["loc"][0])
        if name in seen:
            continue
        seen.add(name)
        source = f"--{name.replace('_', '-')}" if name in given else f"{PREFIX}{name.upper()}"
        own = wrong["type"] == "value_error"
        must = wrong["msg"].removeprefix("Value error, ") if own else f"must be {allowed(name)}"
        yield f"{source}={_shown(name, wrong['input'])}: {must}"


def allowed(name: str) -> str:
    """What a setting may be, in words."""
    schema = Settings.model_json_schema()["properties"][name]
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    match schema.get("type"):
        case "boolean":
            return "true or false"
        case "integer" | "number" as kind:
            limits = (f" {word} {schema[limit]:.15g}" for limit, word in _LIMITS.items() if limit in schema)
            return ("a whole number" if kind == "integer" else "a number") + "".join(limits)
    return str(schema["description"]).rstrip(".")


def _shown(name: str, value: Any) -> str:
    text = str(value)
    if name == "redis_url" and "@" in text:  # what stands before it may be a password
        text = f"***@{text.rpartition('@')[2]}"
    if not text.isprintable():
        text = repr(text)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "..."
