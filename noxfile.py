"""The tests on every Python that the project supports and this machine has: `make pythons`.

`nox -s "tests-3.12" -- -m "not slow"` runs some of them on one. A Python that is not
installed is skipped, with a word about it.
"""

from __future__ import annotations

import nox

nox.options.error_on_missing_interpreters = False


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def tests(session: nox.Session) -> None:
    """Every test, in an environment of its own with the versions of constraints.txt."""
    session.install("-c", "constraints.txt", "-e", ".[engine,server,plots,dev]")
    session.run("pytest", "-n", "2", "--dist", "loadfile", *session.posargs)
