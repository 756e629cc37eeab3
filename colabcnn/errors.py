"""Errors that a person can cause or mend."""

from typing import Any


class Error(Exception):
    """One message that says what was received, what was expected and what to do.

    The command line prints it as one line and exits with code 2; a notebook shows it without a traceback. Each adds the
    advice that fits there, by the kind.

    Args:
        message: the message.
        kind: "no_data", "another_run", "shared_without_checkpoint", "too_long", or "" where there is no advice.
        **facts: what the advice needs.
    """

    def __init__(self, message: str, kind: str = "", **facts: Any):
        super().__init__(message)
        self.kind = kind
        self.facts = facts

    def _render_traceback_(self):
        """Return what IPython shows instead of a traceback."""
        return [f"colabcnn.Error: {self}"]


class AnotherRunError(Error):
    """Say that a folder holds another run than the one that was asked for."""


class UnknownFormatError(Error):
    """Say that a file was written by a version that this one does not read."""


class Interrupted(KeyboardInterrupt):
    """Say in a notebook, in one line instead of a traceback, that Ctrl-C stopped a run."""

    def _render_traceback_(self):
        """Return what IPython shows instead of a traceback."""
        return ["KeyboardInterrupt: the run was stopped; the same call continues it."]
