"""The Celery application. A message is a bare ticket, "there is work": what to do stands in the store.

Settings measured, and the reasons for them, in docs/jobs.md.
"""

from __future__ import annotations

from celery import Celery

from jobs.settings import Settings

QUEUE = "dmft"
TICKET = "dmft.ticket"


def broker_url(redis_url: str) -> str:
    """Celery's spelling of a Redis URL."""
    return redis_url.replace("unix://", "redis+socket://", 1)


def create_app(settings: Settings) -> Celery:
    """The application for these settings; used by workers and by whoever sends tickets."""
    app = Celery("dmft", broker=broker_url(settings.redis_url), include=["worker.task"])
    socket = {
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        "socket_keepalive": not settings.redis_url.startswith("unix://"),
        "health_check_interval": 15,
    }
    app.conf.update(
        task_default_queue=QUEUE,
        # A ticket lost is sent again by the reaper; one delivered twice would find nothing to claim.
        task_acks_late=False,
        worker_disable_prefetch=True,
        task_ignore_result=True,
        broker_transport_options={
            "visibility_timeout": 60,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            **socket,
        },
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        worker_hijack_root_logger=False,
        worker_pool="threads",
    )
    return app


app = create_app(Settings())
