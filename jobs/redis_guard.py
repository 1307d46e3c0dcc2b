"""A process that ends the embedded Redis once nobody needs it: `redis_guard.py <pid of Redis>`.

Its standard input is a pipe whose other end the launcher, the API and the worker hold. When the last of
them has ended, however it ended, the pipe closes: a worker whose launcher was killed still finds Redis, and
can give its job back. Run by itself, so it imports nothing but the standard library.
"""

from __future__ import annotations

import os
import select
import signal
import sys

_GRACE_SECONDS = 10.0


def main() -> None:
    """Wait for the end of the holders, or of Redis."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        server = os.pidfd_open(int(sys.argv[1]))
    except ProcessLookupError:
        return
    ended, _, _ = select.select([server, 0], [], [])
    if server in ended:
        return
    signal.pidfd_send_signal(server, signal.SIGTERM)
    if not select.select([server], [], [], _GRACE_SECONDS)[0]:
        signal.pidfd_send_signal(server, signal.SIGKILL)


if __name__ == "__main__":
    main()
