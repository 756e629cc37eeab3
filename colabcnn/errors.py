"""Errors that a user can cause or repair."""

import re
from typing import Any

MALFORMED = (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError)
"""What a reader may raise where a file's content does not have the expected form."""

# Lines of TensorFlow's messages before the one with the cause: an operation and its stack, which is indented.
_BEFORE_THE_CAUSE = re.compile(
    r"\s(?!\s*\(\d+\))|Graph execution error|Detected at node|<stack traces|Node: |\d+ root error"
)


def cause_of(error: BaseException) -> str:
    """Return an error's type and the line of its message that has the cause."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if not _BEFORE_THE_CAUSE.match(line)]
    return ": ".join([type(error).__name__, *(line.strip() for line in (causes or lines)[:1])])


class Error(Exception):
    """One message: what was received, what was expected and what to do.

    The command line prints it as one line and exits with code 2; a notebook shows it without a traceback. Each adds its
    own advice, by the kind.

    Args:
        message: the message.
        kind: "no_data", "another_run", "no_drive", "shared_without_checkpoint", "too_long"; "" if there is no advice.
        **facts: values for the advice.
    """

    def __init__(self, message: str, kind: str = "", **facts: Any):
        super().__init__(message)
        self.kind = kind
        self.facts = facts

    def _render_traceback_(self):
        """Return what IPython shows instead of a traceback."""
        return [f"colabcnn.Error: {self}"]


class AnotherRunError(Error):
    """Drive holds another run than the one that is delivered."""


class UnknownFormatError(Error):
    """A file has the format of another version."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM stopped a training or a measurement; a notebook shows one line instead of a traceback.

    Args:
        message: what was stopped, and what continues it.
    """

    def __init__(self, message: str = "the run was stopped; the same call continues it."):
        super().__init__(message)

    def _render_traceback_(self):
        """Return what IPython shows instead of a traceback."""
        return [f"KeyboardInterrupt: {self}"]
