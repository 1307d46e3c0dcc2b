"""What ends a command with a message."""


class CommandError(Exception):
    """Something the user can put right; printed without a traceback.

    Attributes:
        status: the exit status.
    """

    status = 1


class UsageError(CommandError):
    """The command was called wrongly, or its settings are wrong."""

    status = 2
