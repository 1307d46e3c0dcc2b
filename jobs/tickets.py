"""Tickets: Celery messages that say to every worker that there may be work, and nothing else.

What to do stands in the store. A ticket reaches each live worker (a fanout exchange: one that all are busy
with does not stay with a worker that cannot take the job); one too many finds nothing to claim, one that is
lost is made up for by the worker's own looking.
"""

from __future__ import annotations

import logging
from typing import Any

import redis
from celery import Celery
from kombu import Exchange
from kombu.common import Broadcast
from kombu.exceptions import OperationalError

from jobs.settings import Settings

logger = logging.getLogger(__name__)

TASK = "dmft.ticket"
_EXCHANGE = Exchange("dmft.tickets", type="fanout")
_KEY = "ticket"


def configuration(settings: Settings) -> dict[str, Any]:
    """Celery's configuration for these settings; the reasons are in docs/jobs.md."""
    return {
        "broker_url": settings.redis_url.replace("unix://", "redis+socket://", 1),
        "task_queues": (Broadcast(_EXCHANGE.name, exchange=_EXCHANGE, routing_key=_KEY, no_ack=True),),
        "task_ignore_result": True,
        "broker_transport_options": {
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": not settings.redis_url.startswith("unix://"),
            "health_check_interval": 15,
        },
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "worker_hijack_root_logger": False,
        "worker_pool": "threads",
    }


def sender(settings: Settings) -> Celery:
    """An application that sends tickets."""
    app = Celery("dmft", set_as_current=False)
    app.conf.update(configuration(settings))
    return app


def send(app: Celery) -> bool:
    """Send one ticket. False if the broker refused: workers will see by themselves that there is work."""
    try:
        app.send_task(TASK, exchange=_EXCHANGE, routing_key=_KEY, declare=[_EXCHANGE], retry=False)
    except (OperationalError, redis.RedisError):
        logger.warning("ticket not sent; workers look by themselves", exc_info=True)
        return False
    return True
