"""`dmft api`: the HTTP API alone."""

from __future__ import annotations

import argparse
import os
import socket

from api.main import create_app
from api.server import Server
from cli import options
from jobs import logs


def configure(parser: argparse.ArgumentParser) -> None:
    options.add(parser, "redis_url", "data_dir", "host", "port", "log_level")
    parser.add_argument("--fd", type=int, help=argparse.SUPPRESS)  # a listening socket, from `dmft serve`


def run(arguments: argparse.Namespace) -> None:
    settings = options.settings(arguments)
    options.external_redis(settings)
    os.umask(0o077)
    logs.configure(settings)
    server = Server(create_app(settings), settings, host=settings.host, port=settings.port, log_config=None)
    sockets = None if arguments.fd is None else [socket.socket(fileno=arguments.fd)]
    server.run(sockets)
