"""How every process here talks to Redis: bounded waits, a few retries, text answers."""

from __future__ import annotations

from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff
from redis.retry import Retry


def connect(url: str) -> redis.Redis:
    """A client that gives up on a silent server within seconds.

    The defaults of redis-py 8 keep a caller waiting about a minute on a frozen server.
    """
    options: dict[str, Any] = {} if url.startswith("unix://") else {"socket_keepalive": True}
    return redis.Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=10,
        socket_connect_timeout=5,
        health_check_interval=15,
        retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), 3),
        retry_on_error=[redis.ConnectionError, redis.TimeoutError],
        **options,
    )


def connect_async(
    url: str, *, connections: int, timeout: float, connect_timeout: float = 3.0
) -> redis.asyncio.Redis:
    """A client for an event loop: at most so many connections, each command answered within `timeout`.

    Who finds all connections in use waits `connect_timeout` for one, and is then told that the store does
    not answer. Connections that a restarted server has closed are replaced.
    """
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=connect_timeout,
        decode_responses=True,
        socket_timeout=timeout,
        socket_connect_timeout=connect_timeout,
        retry=AsyncRetry(ExponentialBackoff(cap=0.2, base=0.02), 2),
        retry_on_error=[redis.ConnectionError],
    )
    return redis.asyncio.Redis(connection_pool=pool)
