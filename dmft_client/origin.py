"""Whether a result is that of the solve that was asked for."""

from __future__ import annotations

import re
from typing import Any

import httpx

from dmft_client.errors import UnexpectedAnswer
from dmft_client.result import Result
from dmft_schema import Job

_LABELS = {"name", "tags", "priority", "reuse"}
"""What two requests with one result may differ in."""


def check_origin(answer: httpx.Response, result: Result, job: Job) -> None:
    """Compare the answer's name and the result's manifest with the job.

    Raises:
        UnexpectedAnswer: they are of different solves.
    """
    named = re.search(r'filename="([^"]*)\.npz"', answer.headers.get("Content-Disposition", ""))
    if named and named[1] != job.id:
        raise UnexpectedAnswer(f"asked for the result of solve {job.id}, got that of {named[1]}")
    made_of = result.manifest.get("request")
    asked_for = job.request.model_dump(mode="json", exclude=_LABELS)
    difference = _difference(asked_for, made_of, "")
    if difference:
        raise UnexpectedAnswer(
            f"the result that came for solve {job.id} is of another request: {difference} differs"
        )


def _difference(ours: Any, theirs: Any, place: str) -> str:
    """The first place at which two values disagree; what only one of them has may be of another version."""
    if ours == theirs:
        return ""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        pairs = [
            (ours[key], theirs[key], f"{place}.{key}" if place else key) for key in ours if key in theirs
        ]
    elif isinstance(ours, list) and isinstance(theirs, list):
        if all(isinstance(part, str) for part in (*ours, *theirs)):
            # Names in a list (outputs.kernels) are a choice; versions have written them in different orders.
            return "" if set(ours) == set(theirs) else place
        if len(ours) != len(theirs):
            return place
        pairs = [(a, b, place) for a, b in zip(ours, theirs, strict=True)]
    else:
        return place if ours is not None and theirs is not None else ""
    return next(filter(None, (_difference(*pair) for pair in pairs)), "")
