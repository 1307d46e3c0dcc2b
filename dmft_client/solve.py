"""A handle on one solve."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

import httpx
from tqdm import tqdm

from dmft_client.errors import ConnectionFailed, SolveCancelled, SolveFailed, WaitTimeout
from dmft_client.result import Result
from dmft_client.transport import Transport, checked
from dmft_schema import Event, Job, JobStatus

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0


class Solve:
    """One solve on the server. Cheap to make again from its id: `client.get(id)`."""

    def __init__(self, job: Job, transport: Transport, http: httpx.Client) -> None:
        self._job = job
        self._transport = transport
        self._http = http
        self._path = f"/v1/solves/{job.id}"

    @property
    def id(self) -> str:
        return self._job.id

    def __repr__(self) -> str:
        return f"<Solve {self.id} {self._job.status}>"

    def job(self) -> Job:
        """Everything the server says of it, asked afresh."""
        if not self._job.status.final:
            response = self._transport.send("GET", self._path)
            self._job = Job.model_validate_json(response.content)
        return self._job

    def status(self) -> JobStatus:
        """queued, running, succeeded, failed or cancelled."""
        return self.job().status

    def wait(self, timeout: float | None = None, *, progress: bool | None = None) -> Solve:
        """Wait until it is finished, however it ends.

        Args:
            timeout: seconds; None waits for as long as it takes.
            progress: show a bar; by default, if stderr is a terminal.

        Raises:
            WaitTimeout: it is not finished; the message says why.
        """
        show = sys.stderr.isatty() if progress is None else progress
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_PAUSE
        with _Bar(self._job, show) as bar:
            while True:
                job = self.job()
                bar.update(job)
                if job.status.final:
                    return self
                if deadline is not None and time.monotonic() > deadline:
                    assert timeout is not None
                    raise WaitTimeout(job, timeout)
                time.sleep(pause)
                pause = min(pause * 1.5, 0.2 if show else _LONGEST_PAUSE)

    def result(self, *, partial: bool = False) -> Result:
        """The result, once it is finished (see `wait`).

        An iteration that did not converge is warned of; `diagnostics.notes` say how far it got.

        Args:
            partial: of a failed or cancelled solve, give the trajectory that it had reached.

        Raises:
            SolveFailed: it failed.
            SolveCancelled: it was cancelled.
            ApiError: it is not finished, or there is no result.
        """
        job = self.job()
        if job.status is JobStatus.FAILED and not partial:
            raise SolveFailed(job)
        if job.status is JobStatus.CANCELLED and not partial:
            raise SolveCancelled(job)
        result = Result.from_bytes(self._transport.send("GET", f"{self._path}/result.npz").content)
        if result.diagnostics.converged is False:
            warnings.warn(f"solve {self.id}: {'; '.join(result.diagnostics.notes)}", stacklevel=2)
        return result

    def kernel(self, name: str, layer: int | None = None, t: int = -1, s: int | None = None) -> Any:
        """One kernel slice from the server, without downloading the whole result; see Result.phi."""
        import numpy as np

        query = {"layer": layer, "t": t, "s": s}
        query = {key: value for key, value in query.items() if value is not None}
        answer = self._transport.send("GET", f"{self._path}/kernels/{name}", params=query)
        return np.array(answer.json()["values"])

    def cancel(self) -> Job:
        """Ask it to stop; a running one keeps the trajectory that it had reached."""
        response = self._transport.send("POST", f"{self._path}/cancel")
        self._job = Job.model_validate_json(response.content)
        return self._job

    def delete(self) -> None:
        """Forget it and its result; it must be finished."""
        self._transport.send("DELETE", self._path)

    def events(self, after: str = "0") -> Iterator[Event]:
        """Progress and status as they happen, up to the final status; reconnects by itself."""
        final = False
        while not final:
            try:
                for event in self._stream(after):
                    after = event.id
                    yield event
                    final = event.kind == "status" and JobStatus(event.data["status"]).final
            except httpx.TransportError as error:
                if not isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
                    raise ConnectionFailed(f"the event stream of {self.id} broke: {error}") from error
            final = final or self.status().final

    def _stream(self, after: str) -> Iterator[Event]:
        headers = {"Last-Event-ID": after, "Accept": "text/event-stream"}
        with self._http.stream("GET", f"{self._path}/events", headers=headers) as response:
            fields: dict[str, str] = {}
            for line in checked(response).iter_lines():
                if line:
                    key, _, value = line.partition(": ")
                    fields[key] = value
                elif fields.get("data"):
                    yield Event(id=fields["id"], kind=fields["event"], data=json.loads(fields["data"]))
                    fields = {}


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
