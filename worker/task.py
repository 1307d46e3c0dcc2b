"""The Celery task, and what a worker process starts and stops around it."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from dataclasses import dataclass

from celery import signals

from jobs import logs
from jobs.artifacts import Artifacts
from jobs.connection import connect
from jobs.settings import Settings
from jobs.store import JobStore
from worker.app import TICKET, app
from worker.reaper import Reaper
from worker.solver import SolverPool
from worker.supervisor import Supervisor

logger = logging.getLogger(__name__)


@dataclass
class _Process:
    supervisor: Supervisor
    reaper: Reaper
    pool: SolverPool


_processes: list[_Process] = []

_LINGER_SECONDS = 1.0
"""Celery's consumer polls, up to a second apart: who has just finished a job sees the next one sooner."""


@signals.setup_logging.connect
def _log(**_: object) -> None:
    # With a receiver of its own here, Celery leaves all loggers as they are.
    logs.configure(Settings())


@signals.worker_init.connect
def _start(**_: object) -> None:
    settings = Settings()
    client = connect(settings.redis_url)
    store = JobStore(client, settings)
    artifacts = Artifacts.of(settings)
    worker = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    pool = SolverPool()
    # The first job should not wait for the import of torch.
    pool.give_back(pool.acquire())
    process = _Process(
        Supervisor(store, artifacts, pool, settings, worker),
        Reaper(store, artifacts, app, client, settings, worker),
        pool,
    )
    _processes.append(process)
    process.reaper.start()


@signals.worker_shutting_down.connect
def _drain(**_: object) -> None:
    for process in _processes:
        process.supervisor.draining.set()


@signals.worker_shutdown.connect
def _stop(**_: object) -> None:
    for process in _processes:
        process.reaper.stop()
        process.pool.close()


@app.task(name=TICKET)
def ticket() -> None:
    """There may be work: see to it."""
    _processes[0].supervisor.work(_LINGER_SECONDS)
