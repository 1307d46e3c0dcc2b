"""`dmft serve`: a server on this machine, in one command."""

from __future__ import annotations

import argparse
import logging
import signal
import threading

from cli import options
from cli.private import LOGS
from cli.server import LocalServer
from jobs import logs
from jobs.settings import Settings


def configure(parser: argparse.ArgumentParser) -> None:
    options.add(
        parser,
        "host",
        "port",
        "data_dir",
        "workers",
        "redis_url",
        "device",
        "threads",
        "memory_gb",
        "log_level",
    )


def run(arguments: argparse.Namespace) -> None:
    settings = options.settings(arguments)
    _log(settings)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    with LocalServer(settings) as server:
        print(f"Serving on {server.url}  (page: {server.url}/, reference: {server.url}/docs)")
        print(f"The admin's API key is in {server.key_file}; clients on this machine find it by themselves.")
        print("Ctrl-C stops.", flush=True)
        server.watch(stop)
        print("Stopping; running solves go back to the queue.", flush=True)


def _log(settings: Settings) -> None:
    """What the launcher has to say goes to the terminal as text, and into a file like everything else."""
    terminal = settings.model_copy(update={"log_file": None, "log_format": "text"})
    logs.configure(terminal)
    beside = settings.model_copy(update={"log_file": settings.data_dir / LOGS / "serve.log"})
    logging.getLogger().addHandler(logs.handler(beside))
