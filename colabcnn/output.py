"""The one way out for what this library prints: a training is worth more than its messages."""

import sys
from typing import Any, TextIO


def write(text: str = "", *, end: str = "\n", stream: TextIO | None = None) -> None:
    """Print a text at once.

    A stream that is missing, closed, full or has lost its reader drops the text. A character that the stream's
    encoding lacks becomes "?".

    Args:
        text: what to print.
        end: what follows it.
        stream: `sys.stdout` if None.
    """
    stream = stream or sys.stdout
    if stream is None:  # As under pythonw, and in some services.
        return
    try:
        try:
            print(text, end=end, file=stream, flush=True)
        except UnicodeEncodeError:
            encoding = getattr(stream, "encoding", None) or "ascii"
            print(text.encode(encoding, "replace").decode(encoding), end=end, file=stream, flush=True)
    except Exception:  # Whatever a stream does that is closed, full, without a reader, or no file.
        pass


def running_shell() -> Any:
    """Return IPython's shell if one runs us, or None."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


def in_notebook() -> bool:
    """Return whether a Jupyter kernel runs us."""
    return hasattr(running_shell(), "kernel")
