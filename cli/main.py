"""Entry point of `dmft`: reads the command line and hands over to the command's module."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module, metadata

from cli.errors import CommandError

COMMANDS = {
    "serve": "a server on this machine: Redis, worker and API in one command",
    "api": "the API alone, for deployments",
    "worker": "a worker alone, for more machines",
    "solve": "solve a request from a file or from options",
    "list": "your solves, newest first",
    "show": "everything the server says of one solve",
    "watch": "follow a solve to its end",
    "cancel": "stop solves; what they reached is kept",
    "delete": "forget finished solves and their results",
    "download": "a result as NPZ, netCDF or CSV",
    "compare": "results in one table, and how far each is from the first",
    "plot": "loss curves and kernels as a picture",
    "demo": "the theory and finite networks on real images, over HTTP",
    "keys": "make, list and revoke API keys",
}
"""Each is a module of this package with `configure(parser)` and `run(arguments)`."""

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="dmft", description="Dynamical mean-field theory of wide neural networks, over HTTP."
    )
    parser.add_argument("--version", action="version", version=metadata.version("dmft-service"))
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="command")
    chosen = next((word for word in argv if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary[0].upper() + summary[1:])
        if name == chosen:
            # Only the chosen command is imported: a client-only installation lacks what servers need.
            try:
                import_module(f"cli.{name}").configure(subparser)
            except ModuleNotFoundError as missing:
                print(_needs_extra(name, missing), file=sys.stderr)
                return 1
    arguments = parser.parse_args(argv)
    try:
        return int(import_module(f"cli.{arguments.command}").run(arguments) or 0)
    except CommandError as error:
        print(f"dmft {arguments.command}: {error}", file=sys.stderr)
        return error.status
    except OSError as error:
        if error.filename is None:
            raise
        print(f"dmft {arguments.command}: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as missing:
        if missing.name not in _EXTRAS:
            raise
        print(_needs_extra(arguments.command, missing), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


_EXTRAS = {"matplotlib": "plots", "xarray": "notebooks", "pandas": "notebooks", "h5netcdf": "notebooks"}


def _needs_extra(command: str, missing: ModuleNotFoundError) -> str:
    extra = _EXTRAS.get(missing.name or "", "engine,server")
    return f"dmft {command}: {missing.name} is not installed; `pip install 'dmft-service[{extra}]'` brings it"


if __name__ == "__main__":
    sys.exit(main())
