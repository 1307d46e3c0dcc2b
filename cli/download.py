"""`dmft download ID`: a result as a file of the format that its name says."""

from __future__ import annotations

import argparse
from pathlib import Path

from cli import remote
from cli.errors import CommandError
from dmft_client import Result

FORMATS = {
    ".npz": "all arrays, for numpy",
    ".nc": "all arrays with named axes, netCDF 4 (which is HDF5)",
    ".csv": "the trajectory as a table",
}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", help="of a solve, or an NPZ file to convert")
    endings = "; ".join(f"{ending}: {what}" for ending, what in FORMATS.items())
    parser.add_argument("-o", "--output", type=Path, help=f"the file (<id>.npz); {endings}")
    parser.add_argument(
        "--partial", action="store_true", help="of a failed or cancelled solve, what it reached"
    )
    remote.add_server(parser)


def run(arguments: argparse.Namespace) -> None:
    output = arguments.output or Path(f"{Path(arguments.id).stem}.npz")
    if output.suffix not in FORMATS:
        raise CommandError(f"{output}: the name must end in one of {', '.join(FORMATS)}")
    if arguments.id.endswith(".npz"):
        try:
            result = Result.load(arguments.id)
        except OSError as error:
            raise CommandError(f"cannot read {arguments.id}: {error.strerror}") from None
    else:
        with remote.client(arguments) as client:
            result = client.get(arguments.id).result(partial=arguments.partial)
    try:
        _write(result, output)
    except OSError as error:
        raise CommandError(f"cannot write {output}: {error.strerror or error}") from None
    print(f"wrote {output}")


def _write(result: Result, output: Path) -> None:
    if output.suffix == ".nc":
        result.to_xarray().to_netcdf(output, engine="h5netcdf")
    elif output.suffix == ".csv":
        result.to_dataframe().to_csv(output)
    else:
        result.save(output)
