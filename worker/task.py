"""The Celery task, and what a worker process starts and stops around it."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
from dataclasses import dataclass
from importlib import metadata

from celery import signals

from jobs import logs, tickets
from jobs.artifacts import Artifacts
from jobs.configuration import load_or_exit
from jobs.connection import connect
from jobs.settings import Settings
from jobs.store import JobStore
from jobs.workers import WorkerFacts
from worker.app import app
from worker.reaper import Reaper
from worker.slots import Slots
from worker.solver import SolverDied, SolverPool
from worker.supervisor import Supervisor

logger = logging.getLogger(__name__)


READY_SECONDS = 120.0
"""Longest that a solver process may take to come up."""

STOP_SECONDS = 12.0
"""Longest that giving running jobs back may take when the worker is told to end."""


@dataclass
class _Process:
    slots: Slots
    reaper: Reaper
    pool: SolverPool


_processes: list[_Process] = []


@signals.setup_logging.connect
def _log(**_: object) -> None:
    # With a receiver of its own here, Celery leaves all loggers as they are.
    logs.configure(load_or_exit())
    # Lines for each ticket are too many.
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)


@signals.worker_init.connect
def _start(**_: object) -> None:
    settings = load_or_exit()
    store = JobStore(connect(settings.redis_url), settings)
    artifacts = Artifacts.of(settings)
    worker = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    pool = SolverPool(device=settings.device)
    # The first jobs should not wait for the import of torch.
    pool.keep_warm(settings.workers)
    facts = _facts(settings, pool)
    supervisor = Supervisor(store, artifacts, pool, settings, worker, _tell, facts)
    process = _Process(
        Slots(supervisor, settings.workers),
        Reaper(store, artifacts, settings, worker, _tell, facts),
        pool,
    )
    _processes.append(process)
    process.reaper.start()
    process.slots.start()


def _facts(settings: Settings, pool: SolverPool) -> WorkerFacts:
    """What this worker can do, by its solvers' own account; one whose solvers cannot work ends here."""
    try:
        about = pool.about(READY_SECONDS)
    except (SolverDied, TimeoutError) as death:
        logger.error("no solver process comes up: %s", death)
        pool.close()
        sys.exit(1)
    if about.device_error is not None:
        logger.error("%s. %s", about.device_error.message, about.device_error.advice)
        pool.close()
        sys.exit(1)
    own = about.device_bytes
    return WorkerFacts(
        device=settings.device,
        memory_bytes=settings.solve_bytes if own is None else settings.share_of(own),
        slots=settings.workers,
        methods=about.methods,
        numerics=about.numerics,
        torch=about.torch,
        version=metadata.version("dmft-service"),
        host=socket.gethostname(),
        pid=os.getpid(),
    )


def _tell() -> None:
    tickets.send(app)


@signals.worker_shutting_down.connect
def _drain(**_: object) -> None:
    for process in _processes:
        process.slots.drain()


@signals.worker_shutdown.connect
def _stop(**_: object) -> None:
    for process in _processes:
        process.slots.drain()
        if not process.slots.join(STOP_SECONDS):
            logger.error("some jobs could not be given back in time; they run again when their lease ends")
        process.reaper.stop()
        process.pool.close()


@app.task(name=tickets.TASK)
def ticket() -> None:
    """There may be work."""
    for process in _processes:
        process.slots.wake()
