"""The Celery application of workers."""

from __future__ import annotations

from celery import Celery

from jobs import tickets
from jobs.configuration import load_or_exit

app = Celery("dmft", include=["worker.task"])
# Settings are read when the application first needs them: importing it asks for nothing.
app.add_defaults(lambda: tickets.configuration(load_or_exit()))
