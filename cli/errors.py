"""What ends a command with a message."""


class CommandError(Exception):
    """Something the user can put right; printed without a traceback."""
