"""Command-line options that set Settings; every other setting comes from the environment."""

from __future__ import annotations

import argparse

from cli.errors import CommandError, UsageError
from jobs import configuration
from jobs.settings import PREFIX, Settings


def add(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add an option for each named setting; its help and default are the setting's own."""
    for name in names:
        field = Settings.model_fields[name]
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            metavar=name.rsplit("_", 1)[-1].upper(),
            help=f"{field.description} ({PREFIX}{name.upper()})".replace("%", "%%"),
        )


def settings(arguments: argparse.Namespace) -> Settings:
    """The environment's settings with the command line's on top.

    Raises:
        UsageError: naming the setting that is wrong, its value and what is allowed.
    """
    given = {
        name: value
        for name, value in vars(arguments).items()
        if name in Settings.model_fields and value is not None
    }
    return load(**given)


def load(**given: object) -> Settings:
    """The environment's settings, with `given` ones on top.

    Raises:
        UsageError: naming the setting that is wrong, its value and what is allowed.
    """
    try:
        return configuration.load(**given)
    except configuration.SettingsError as error:
        raise UsageError(str(error)) from None


def external_redis(configured: Settings) -> str:
    """The URL of the Redis to use when there is no embedded one.

    Raises:
        CommandError: none is configured.
    """
    if not configured.redis_url:
        raise CommandError("which Redis? Give --redis-url or DMFT_REDIS_URL (`dmft serve` brings its own)")
    return configured.redis_url


def environment(configured: Settings) -> dict[str, str]:
    """The settings as DMFT_* variables, for a child process to read the same ones."""
    values = configured.model_dump(mode="json", exclude_none=True)
    return {f"{PREFIX}{name.upper()}": str(value) for name, value in values.items()}
