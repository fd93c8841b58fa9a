"""The errors that a user may meet: each is one line that says what is wrong and how to mend it.

The command line prints the line and ends with the class's exit code; anything else that escapes is a bug
and keeps its traceback.
"""

from __future__ import annotations


class PanguError(Exception):
    """A job failed for a reason that its user can mend (exit code 1).

    The message is a single line: the file or key, the value found, what is allowed, and what to type.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class UsageError(PanguError):
    """The command line, a configuration file or a request is itself wrong (exit code 2)."""

    exit_code = 2


class Terminated(KeyboardInterrupt):
    """SIGTERM came while something was half done, which is removed on the way out."""
