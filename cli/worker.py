"""`dmft worker`: a worker alone, on this or another machine; it joins by pointing at the same Redis."""

from __future__ import annotations

import argparse
import os
import sys

from cli import options
from jobs.settings import Settings


def configure(parser: argparse.ArgumentParser) -> None:
    options.add(
        parser,
        "redis_url",
        "data_dir",
        "artifact_dir",
        "workers",
        "device",
        "threads",
        "memory_gb",
        "log_level",
    )


def command(settings: Settings) -> list[str]:
    """The Celery command of a worker with these settings."""
    # Celery's own pool only hears tickets: slots are threads, and solves run in processes of their own.
    celery = [sys.executable, "-m", "celery", "-A", "worker.app", "worker"]
    flags = ["--without-gossip", "--without-mingle", "--loglevel", settings.log_level]
    return [*celery, "-P", "threads", "-c", "1", *flags]


def run(arguments: argparse.Namespace) -> None:
    settings = options.settings(arguments)
    options.external_redis(settings)
    os.umask(0o077)
    os.environ.update(options.environment(settings))
    # In this process's place, so that signals from a supervisor reach Celery itself.
    os.execv(sys.executable, command(settings))
