"""A solve's events as they happen (server-sent events)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator

import httpx
from httpx_sse import EventSource, ServerSentEvent

from dmft_client.errors import ApiError
from dmft_client.transport import Retries, Transport
from dmft_schema import Event, JobStatus

_REOPENING_PAUSE = 0.2
_FINAL = {status.value for status in JobStatus if status.final}


def follow(transport: Transport, path: str, after: str, is_finished: Callable[[], bool]) -> Iterator[Event]:
    """Events after the event id `after`, up to the final status; see Solve.events.

    Args:
        path: of the solve.
        is_finished: asked when a stream ends without a final status.
    """
    retries, finished = Retries(transport, None), False
    while True:
        try:
            for event in _stream(transport, path, after):
                after = event.id
                retries = Retries(transport, None)
                yield event
                if event.kind == "status" and event.data.get("status") in _FINAL:
                    return
        except (httpx.RequestError, ApiError) as error:
            retries.after(error)
            continue
        if finished:
            return
        # What happened between the end of the stream and now is still to be read.
        finished = is_finished()
        if not finished:
            time.sleep(_REOPENING_PAUSE)


def _stream(transport: Transport, path: str, after: str) -> Iterator[Event]:
    process = os.getpid()
    headers = {"Last-Event-ID": after, "Accept": "text/event-stream"}
    with transport.stream(f"{path}/events", headers=headers) as response:
        for sent in EventSource(response).iter_sse():
            event = _event(sent)
            if event is not None:
                yield event
            if os.getpid() != process:
                return  # Forked off meanwhile: the rest of this stream is the parent's to read.


def _event(sent: ServerSentEvent) -> Event | None:
    if not sent.data:
        return None
    try:
        data = json.loads(sent.data)
    except ValueError:
        # A line cut short by a server that went away; the stream is resumed after the last whole event.
        raise httpx.RemoteProtocolError(f"an event that is not JSON: {sent.data[:100]!r}") from None
    return Event(id=sent.id, kind=sent.event, data=data) if isinstance(data, dict) else None
