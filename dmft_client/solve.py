"""A handle on one solve."""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import numpy as np
from tqdm import tqdm

from dmft_client import events, notebook
from dmft_client.errors import (
    ApiError,
    ConnectionFailed,
    SolveCancelled,
    SolveFailed,
    UnexpectedAnswer,
    WaitTimeout,
)
from dmft_client.origin import check_origin
from dmft_client.result import Result
from dmft_client.transport import Transport
from dmft_schema import Event, Job, JobStatus

_WAIT_SECONDS = 10.0
"""How long the server is asked to hold back its answer until the solve is finished."""

_BAR_SECONDS = 0.2
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
"""Pauses between answers that come at once: of a server that has no place to wait in, or is of old."""


class Solve:
    """One solve on the server. Cheap to make again from its id: `client.get(id)`."""

    def __init__(self, job: Job, transport: Transport) -> None:
        self._job = job
        self._transport = transport

    @classmethod
    def attach(cls, solve_id: str, transport: Transport) -> Solve:
        """A handle on a solve that is there already."""
        return cls(_asked(solve_id, "GET", "", transport), transport)

    @property
    def _path(self) -> str:
        return _path(self.id)

    @property
    def id(self) -> str:
        return self._job.id

    @property
    def known(self) -> Job:
        """What the server said of it when it was last asked."""
        return self._job

    def __repr__(self) -> str:
        return f"<Solve {self.id} {self._job.status}>"

    def _repr_html_(self) -> str:
        return notebook.of_solve(self._job)

    def job(self) -> Job:
        """Everything the server says of it, asked afresh."""
        return self._refreshed()

    def _refreshed(self, **options: Any) -> Job:
        if not self._job.status.final:
            self._job = _asked(self.id, "GET", "", self._transport, **options)
        return self._job

    def _finished_within(self, seconds: float, deadline: float) -> Job:
        """The job once it is finished, or after some seconds."""
        seconds = max(0.0, min(seconds, self._transport.connection.timeout / 2, deadline - time.monotonic()))
        return self._refreshed(give_up=deadline, headers={"Prefer": f"wait={seconds:.2f}"})

    def status(self) -> JobStatus:
        """queued, running, succeeded, failed or cancelled."""
        return self.job().status

    def wait(self, timeout: float | None = None, *, progress: bool | None = None) -> Solve:
        """Wait until it is finished, however it ends, also while the server is away or starts again.

        Args:
            timeout: seconds; None waits for as long as it takes.
            progress: show a bar; by default, if stderr is a terminal.

        Raises:
            WaitTimeout: it is not finished; the message says why.
            ValueError: timeout is negative or not a number.
        """
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be a number of seconds from 0, or None; got {timeout}")
        show = sys.stderr.isatty() if progress is None else progress
        limit = math.inf if timeout is None else timeout
        deadline = time.monotonic() + limit
        held_back, pause = _BAR_SECONDS if show else _WAIT_SECONDS, _FIRST_PAUSE
        with _Bar(self._job, show) as bar:
            while True:
                asked = time.monotonic()
                try:
                    job = self._finished_within(held_back, deadline)
                except (ApiError, ConnectionFailed) as error:
                    if not error.passing:
                        raise
                    raise WaitTimeout(self._job, limit, error) from error
                bar.update(job)
                if job.status.final:
                    return self
                now = time.monotonic()
                if now >= deadline:
                    raise WaitTimeout(job, limit)
                time.sleep(max(0.0, min(asked + pause, deadline) - now))
                pause = min(pause * 1.5, _BAR_SECONDS if show else _LONGEST_PAUSE)

    def result(self, *, partial: bool = False) -> Result:
        """The result, once it is finished (see `wait`).

        An iteration that did not converge is warned of; `diagnostics.notes` say how far it got.

        Args:
            partial: of a failed or cancelled solve, give the trajectory that it had reached.

        Raises:
            SolveFailed: it failed.
            SolveCancelled: it was cancelled.
            ApiError: it is not finished, or there is no result.
            UnexpectedAnswer: what came is no result, or that of another solve.
        """
        job = self.job()
        if job.status is JobStatus.FAILED and not partial:
            raise SolveFailed(job)
        if job.status is JobStatus.CANCELLED and not partial:
            raise SolveCancelled(job)
        answer = self._transport.send("GET", f"{self._path}/result.npz")
        result = Result.from_bytes(answer.content)
        check_origin(answer, result, job)
        if result.diagnostics.converged is False:
            warnings.warn(f"solve {self.id}: {'; '.join(result.diagnostics.notes)}", stacklevel=2)
        return result

    def kernel(self, name: str, layer: int | None = None, t: int = -1, s: int | None = None) -> Any:
        """One kernel slice from the server, without downloading the whole result; see Result.phi."""
        query = {"layer": layer, "t": t, "s": s}
        query = {key: value for key, value in query.items() if value is not None}
        answer = self._transport.send("GET", f"{self._path}/kernels/{quote(name, safe='')}", params=query)
        try:
            # A number that JSON cannot hold comes as null: NaN here.
            return np.array(answer.json()["values"], dtype=np.float64)
        except (ValueError, KeyError, TypeError) as error:
            raise UnexpectedAnswer(f"{answer.url} was answered with what is no kernel: {error}") from None

    def cancel(self) -> Job:
        """Ask it to stop; a running one keeps the trajectory that it had reached."""
        self._job = _asked(self.id, "POST", "/cancel", self._transport)
        return self._job

    def delete(self) -> None:
        """Forget it and its result; it must be finished."""
        self._transport.send("DELETE", self._path)

    def events(self, after: str = "0") -> Iterator[Event]:
        """Progress and status as they happen, up to the final status; reconnects by itself.

        Args:
            after: the id of the last event that is known; "0" gives all.

        Raises:
            ConnectionFailed: the server stays away for longer than the client's patience.
            NotFound: the solve was deleted.
        """
        return events.follow(self._transport, self._path, after, lambda: self.status().final)


def _path(solve_id: str) -> str:
    return f"/v1/solves/{quote(solve_id, safe='')}"


def _asked(solve_id: str, method: str, what: str, transport: Transport, **options: Any) -> Job:
    """The job as the server answers it, checked to be the one that was asked for."""
    job = transport.read(Job, method, _path(solve_id) + what, **options)
    if job.id != solve_id:
        raise UnexpectedAnswer(f"asked for solve {solve_id}, the answer is about {job.id}")
    return job


class _Bar:
    """A progress bar over a solve's steps."""

    def __init__(self, job: Job, show: bool) -> None:
        label = job.name or f"{job.request.method.name} {job.id}"
        self._bar = tqdm(desc=label, disable=not show, unit="step", leave=True)

    def update(self, job: Job) -> None:
        progress = job.progress
        self._bar.total = progress.steps or None
        self._bar.n = progress.step
        if progress.loss is not None:
            self._bar.set_postfix_str(f"loss {progress.loss:.4g}", refresh=False)
        elif job.waiting_reason:
            self._bar.set_postfix_str(job.waiting_reason, refresh=False)
        self._bar.refresh()

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()
