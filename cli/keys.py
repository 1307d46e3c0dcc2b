"""`dmft keys`: API keys for the people of the lab."""

from __future__ import annotations

import argparse

import redis

from cli import options
from cli.errors import CommandError
from cli.server import embedded_url
from jobs import logs
from jobs.connection import connect
from jobs.keys import KeyStore


def configure(parser: argparse.ArgumentParser) -> None:
    options.add(parser, "redis_url", "data_dir")
    actions = parser.add_subparsers(dest="action", required=True)
    create = actions.add_parser("create", help="make a key and print it, once")
    create.add_argument("user")
    create.add_argument("--admin", action="store_true", help="may see and end everybody's solves")
    actions.add_parser("list", help="ids of keys, and their users' roles, names and ids")
    revoke = actions.add_parser("revoke", help="make a key useless")
    revoke.add_argument("id", help="as shown by list")


def run(arguments: argparse.Namespace) -> None:
    settings = options.settings(arguments)
    url = settings.redis_url or embedded_url(settings.data_dir)
    try:
        _act(KeyStore(connect(url)), arguments)
    except redis.RedisError as error:
        where = logs.without_secrets(url)
        raise CommandError(f"Redis at {where} does not answer ({error}); is `dmft serve` running?") from None


def _act(keys: KeyStore, arguments: argparse.Namespace) -> None:
    match arguments.action:
        case "create":
            try:
                print(keys.create(arguments.user, "admin" if arguments.admin else "user"))
            except ValueError as error:
                raise CommandError(str(error)) from None
        case "list":
            for info in keys.list():
                print(f"{info.id}  {info.user.role:5}  {info.user.name}  {info.user.id}")
        case "revoke":
            try:
                found = keys.revoke(arguments.id)
            except ValueError as error:
                raise CommandError(str(error)) from None
            if not found:
                raise CommandError(f"there is no key with id {arguments.id}; see `dmft keys list`")
