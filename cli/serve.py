"""`dmft serve`: a server on this machine, in one command."""

from __future__ import annotations

import argparse
import logging
import signal
import threading

from cli import options
from cli.server import LocalServer


def configure(parser: argparse.ArgumentParser) -> None:
    options.add(parser, "host", "port", "data_dir", "workers", "redis_url", "device", "threads", "log_level")


def run(arguments: argparse.Namespace) -> None:
    settings = options.settings(arguments)
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with LocalServer(settings) as server:
        print(f"Serving on {server.url}  (page: {server.url}/, reference: {server.url}/docs)")
        print(f"The admin's API key is in {server.key_file}; clients on this machine find it by themselves.")
        print("Ctrl-C stops.", flush=True)
        server.watch(stop)
        print("Stopping; running solves go back to the queue.", flush=True)
