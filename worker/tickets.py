"""Tickets: Celery messages that say that there is work."""

from __future__ import annotations

import logging
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from worker.app import QUEUE, TICKET

logger = logging.getLogger(__name__)
_MOST_AT_ONCE = 64


def send(app: Celery) -> bool:
    """Send one ticket. False if the broker refused: the reaper will send another."""
    try:
        app.send_task(TICKET, queue=QUEUE, retry=False)
    except (OperationalError, redis.RedisError):
        logger.warning("ticket not sent; the reaper will send it again", exc_info=True)
        return False
    return True


def top_up(app: Celery, client: redis.Redis, waiting: int) -> int:
    """Make sure that waiting jobs have tickets. Returns how many were sent."""
    connection: Any = client
    missing = min(waiting, _MOST_AT_ONCE) - connection.llen(QUEUE)
    sent = 0
    while sent < missing and send(app):
        sent += 1
    return sent
