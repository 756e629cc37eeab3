"""One line that updates in place, in a terminal and in a notebook."""

import base64
import shutil
import sys
import time
from collections.abc import Callable

from colabcnn.output import in_notebook, write

REFRESH_SECONDS = 0.5
LOG_SECONDS = 10


class ProgressLine:
    """Show the newest state in one line.

    In a terminal the line is overwritten; in a notebook one output is updated, with a picture below it; elsewhere (a
    log file) a line is printed at the end of an epoch, at most one every `LOG_SECONDS`.

    Args:
        quiet: show nothing at all.
    """

    def __init__(self, quiet: bool = False):
        self._quiet = quiet
        self._shown_at = float("-inf")
        self._notebook = not quiet and in_notebook()
        self._outputs = {}
        self._open = False
        self._terminal = not quiet and not self._notebook and _is_terminal()

    def info(self, message: str) -> None:
        """Print a message on its own line."""
        self._open = False
        if not self._quiet:
            write(f"\r\x1b[K{message}" if self._terminal else message)

    def end(self) -> None:
        """End the line, so that the next output is below it."""
        if self._open:
            write()
            self._open = False

    def update(self, text: Callable[[], str], *, milestone: bool = False, last: bool = False) -> None:
        """Show a state.

        Args:
            text: callable that returns the line; called only when it is shown.
            milestone: the end of an epoch, which a log file shows too.
            last: the final state, always shown.
        """
        live = self._terminal or self._notebook
        pause = REFRESH_SECONDS if live else LOG_SECONDS
        if self._quiet or not (last or ((live or milestone) and time.monotonic() - self._shown_at >= pause)):
            return
        self._shown_at = time.monotonic()
        if self._notebook:
            self._show("line", {"text/plain": text()})
        elif self._terminal:
            columns = shutil.get_terminal_size().columns
            write(f"\r\x1b[K{text()[: columns - 1]}", end="\n" if last else "")
            self._open = not last
        else:
            write(text())

    def picture(self, png: bytes) -> None:
        """Refresh the picture below the line, where a notebook shows one.

        Args:
            png: bytes of a PNG file.
        """
        if self._notebook:
            if "line" not in self._outputs:
                self._show("line", {"text/plain": ""})
            self._show("picture", {"image/png": base64.b64encode(png).decode(), "text/plain": "the curves so far"})

    def _show(self, name, data):
        from IPython.display import display

        if name in self._outputs:
            self._outputs[name].update(data, raw=True)
        else:
            self._outputs[name] = display(data, raw=True, display_id=True)


def _is_terminal():
    try:
        return sys.stdout.isatty()
    except (AttributeError, ValueError):  # There is none, or it is closed.
        return False


def duration(seconds: float) -> str:
    """Return a duration in the two units that matter, such as "54 s", "3 min 20 s" or "10 h 30 min"."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
