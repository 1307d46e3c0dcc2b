"""Every setting of the server, in one place. Environment variables `DMFT_*` set them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

import redis
from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "DMFT_"
"""Of the environment's variables."""

_DAYS = 36_500.0
_BYTES = 10**15
_ORIGIN = re.compile(r"\*|null|[A-Za-z][A-Za-z0-9+.-]*://[^/\s,]+")
_HOST = re.compile(r"[A-Za-z0-9_.:%-]{1,253}")
_DEVICE = re.compile(r"cpu|cuda(:[0-9]{1,3})?")


class Settings(BaseSettings):
    """Settings of api, worker and command line. README.md has the table; a test keeps it in step.

    `jobs.configuration.load` reads them, and says in one line what is wrong with them.
    """

    # A variable that is set to nothing, as compose files do, is one that is not set.
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", env_ignore_empty=True, allow_inf_nan=False
    )

    data_dir: Path = Field(
        Path(".dmft"), description="Folder of the admin key, embedded Redis, results and datasets."
    )
    redis_url: str = Field("", description="Redis to use; empty means the embedded one of `dmft serve`.")
    artifact_dir: Path | None = Field(
        None, description="Folder of results and datasets, shared by api and workers (data_dir/artifacts)."
    )
    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: int = Field(8000, ge=0, le=65535, description="Port the API listens on.")
    workers: int = Field(1, ge=1, le=64, description="Solves that one worker process runs side by side.")
    device: str = Field(
        "cpu",
        description="torch device of the solvers: cpu, cuda or cuda:N.",
    )
    threads: int = Field(
        0,
        ge=0,
        le=4096,
        description="CPU threads of a solve with long operations (small ones take one); 0 shares the cores "
        "between the slots.",
    )
    memory_gb: float = Field(
        0.0,
        ge=0,
        le=1e6,
        description="GB that one solve may take; 0 shares 80% of the device's between the slots.",
    )
    lease_seconds: float = Field(
        30.0, ge=0.1, le=1e7, description="A running job whose worker is silent this long is run again."
    )
    stall_seconds: float = Field(
        3600.0,
        ge=0,
        le=1e9,
        description="A solve without a sign of life this long ends as `stalled`; 0 means never.",
    )
    max_attempts: int = Field(
        3, ge=1, le=1000, description="Times a job is started before it counts as failed."
    )
    max_running_per_user: int = Field(4, ge=1, le=10**6, description="Jobs of one user that run at a time.")
    max_queued_per_user: int = Field(1000, ge=1, le=10**6, description="Jobs of one user that may wait.")
    retention_days: float = Field(
        30.0, ge=1e-6, le=_DAYS, description="Days that a finished job and its files are kept."
    )
    tombstone_days: float = Field(
        30.0,
        ge=1e-6,
        le=_DAYS,
        description="Days that the id of a removed job still answers that it is gone.",
    )
    reuse_across_users: bool = Field(
        False,
        description="Whether a user's finished result answers another user's same request.",
    )
    max_datasets_per_user: int = Field(
        1000, ge=1, le=10**6, description="Uploaded datasets that one user may keep."
    )
    max_dataset_bytes_per_user: int = Field(
        10 * 2**30, gt=0, le=_BYTES, description="Bytes that one user's uploaded datasets may take."
    )
    max_body_bytes: int = Field(64 * 2**20, gt=0, le=_BYTES, description="Largest request body, in bytes.")
    min_free_bytes: int = Field(
        64 * 2**20,
        ge=0,
        le=_BYTES,
        description="Free bytes on disk below which no work is taken (at most a tenth of the disk).",
    )
    shared_artifacts: bool = Field(
        False, description="Whether the group of `artifact_dir` may read and write in it."
    )
    max_wait_seconds: float = Field(60.0, ge=0, le=86_400, description="Longest `Prefer: wait=N` honoured.")
    max_streams: int = Field(
        1000,
        ge=1,
        le=10**6,
        description="Event streams and waiting requests that one API process serves at a time.",
    )
    max_connections: int = Field(
        4000,
        ge=16,
        le=10**6,
        description="Connections of one API process (at most what its open files allow).",
    )
    root_path: str = Field(
        "", description="Prefix under which a proxy shows the API, such as `/dmft`; it may leave it on."
    )
    cors_origins: str = Field(
        "", description="Origins whose pages may call the API, separated by commas; `*` means all."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        "INFO", description="Level of the server's logs."
    )
    log_format: Literal["json", "text"] = Field(
        "json", description="Whether a line of the logs is a JSON object or plain text."
    )
    log_file: Path | None = Field(
        None, description="File that a process logs to; standard error if empty. `dmft serve` sets it."
    )
    log_bytes: int = Field(10 * 2**20, gt=0, le=_BYTES, description="Size at which a log is rotated.")
    log_files: int = Field(3, ge=1, le=1000, description="Rotated logs that are kept.")

    @field_validator("root_path")
    @classmethod
    def _from_slash_to_name(cls, value: str) -> str:
        if value and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+/?", value):
            raise ValueError("must be a path such as /dmft")
        return value.rstrip("/")

    @field_validator("redis_url")
    @classmethod
    def _of_redis(cls, value: str) -> str:
        if value:
            try:
                redis.connection.parse_url(value)
            except ValueError:
                # Its own message holds the URL, and with it a password.
                raise ValueError(
                    "must be redis://[:PASSWORD@]HOST[:PORT][/DB], rediss://... or unix:///PATH"
                ) from None
        return value

    @field_validator("host")
    @classmethod
    def _an_address(cls, value: str) -> str:
        if not _HOST.fullmatch(value):
            raise ValueError("must be an address or a host's name")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        if not all(_ORIGIN.fullmatch(origin.strip()) for origin in value.split(",") if origin.strip()):
            raise ValueError("must be origins such as https://lab.example:8443, separated by commas, or *")
        return value

    @field_validator("device")
    @classmethod
    def _of_torch(cls, value: str) -> str:
        if not _DEVICE.fullmatch(value):
            raise ValueError("must be cpu, cuda or cuda:N")
        return value

    @field_validator("data_dir", "artifact_dir")
    @classmethod
    def _a_folder(cls, value: Path | None) -> Path | None:
        if value is not None and not _can_be_folder(value):
            raise ValueError("must be a folder, or a place where one can be made")
        return value

    @field_validator("log_file")
    @classmethod
    def _a_file(cls, value: Path | None) -> Path | None:
        if value is not None and (not _can_be_folder(value.parent) or value.is_dir()):
            raise ValueError("must be a file, or a place where one can be made")
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _in_capitals(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @property
    def artifacts(self) -> Path:
        """Where results and datasets are kept."""
        return self.artifact_dir or self.data_dir / "artifacts"

    @property
    def solver_threads(self) -> int:
        """CPU threads for each solver process."""
        return self.threads or max(1, (os.cpu_count() or 1) // self.workers)

    @property
    def solve_bytes(self) -> float:
        """Memory that one solve may take on this machine's CPUs."""
        return self.share_of(_machine_bytes())

    def share_of(self, device_bytes: float) -> float:
        """Memory that one solve may take on a device with so much."""
        return 1e9 * self.memory_gb or 0.8 * device_bytes / self.workers

    @property
    def lease_milliseconds(self) -> int:
        return int(self.lease_seconds * 1000)


def _can_be_folder(path: Path) -> bool:
    """Whether a path is a folder, or nothing stands in the way of its being made."""
    try:
        while not path.exists():
            path = path.parent
        return path.is_dir()
    except OSError:  # too long a name, a folder that may not be looked into
        return False


def _machine_bytes() -> float:
    """Memory of this machine, or of the container that this process runs in."""
    machine = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limit = Path("/sys/fs/cgroup/memory.max")
    if not limit.is_file() or (text := limit.read_text().strip()) == "max":
        return machine
    return min(machine, float(text))
