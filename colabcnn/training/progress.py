"""A line or two that update in place, in a terminal and in a notebook."""

import shutil
import sys
import time
from collections.abc import Callable

from colabcnn.output import in_notebook, write

REFRESH_SECONDS = 0.5
LOG_SECONDS = 10


class ProgressLine:
    """Show the newest state in a line or two.

    In a terminal the lines are overwritten; in a notebook one output is updated, with others below it; elsewhere (a
    log file) one line is printed at the end of an epoch, at most one every `LOG_SECONDS`.

    Args:
        quiet: show nothing at all.
    """

    def __init__(self, quiet: bool = False):
        self._quiet = quiet
        self._shown_at = float("-inf")
        self.in_notebook = not quiet and in_notebook()
        self._outputs = {}
        self._logged = {}
        self._open = 0  # How many lines are shown that the next state replaces.
        self._terminal = not quiet and not self.in_notebook and _is_terminal()
        self._is_live = self._terminal or self.in_notebook  # Whether lines are updated in place.

    def info(self, message: str) -> None:
        """Print a message on its own line."""
        self._open = 0
        if not self._quiet:
            write(f"\r\x1b[J{message}" if self._terminal else message)

    def end(self) -> None:
        """Leave the lines, so that the next output is below them."""
        if self._open:
            write(end="\n" * self._open)
            self._open = 0

    def update(self, text: Callable[[], str], *, milestone: bool = False, last: bool = False) -> None:
        """Show a state.

        Args:
            text: callable that returns the lines; called only when they are shown.
            milestone: the end of an epoch, which a log file shows too.
            last: the final state, always shown.
        """
        pause = REFRESH_SECONDS if self._is_live else LOG_SECONDS
        if self._quiet or not (last or ((self._is_live or milestone) and time.monotonic() - self._shown_at >= pause)):
            return
        self._shown_at = time.monotonic()
        if self.in_notebook:
            self._show("line", {"text/plain": text()})
        elif self._terminal:
            columns = shutil.get_terminal_size().columns
            lines = [line[: columns - 1] for line in text().splitlines()]
            self._open = 0 if last else len(lines)
            # The cursor stays in the first line, from which the next state clears the screen.
            up = f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else ""
            write("\r\x1b[J" + "\n".join(lines), end="\n" if last else up)
        else:
            write(" · ".join(text().splitlines()))

    def update_lines(self, lines: dict[str, tuple[str, str]], *, last: bool = False) -> None:
        """Show a line for each of several runs; a log file shows those that have changed.

        Args:
            lines: from a run's name to its state and the details, which a log file shows every `LOG_SECONDS` at most.
            last: the final state, always shown.
        """
        texts = {name: ": ".join((name, ", ".join(filter(None, line)))) for name, line in lines.items()}
        if self._is_live:
            # The cursor could not return to a line that has left the screen.
            hidden = max(0, len(texts) + 2 - shutil.get_terminal_size().lines) if self._terminal and not last else 0
            shown = [f"... {hidden + 1} more", *[*texts.values()][hidden + 1 :]] if hidden else texts.values()
            return self.update(lambda: "\n".join(shown), last=last)
        for name, line in lines.items():
            (state, _), at = self._logged.get(name, (("", ""), 0.0))
            if state != line[0] or (self._logged[name][0] != line and time.monotonic() - at >= LOG_SECONDS):
                self._logged[name] = line, time.monotonic()
                self.info(texts[name])

    def show_html(self, name: str, html: str) -> None:
        """Show an output below the lines, where a notebook runs us, or replace the one of that name."""
        if self.in_notebook:
            if "line" not in self._outputs:
                self._show("line", {"text/plain": ""})
            self._show(name, {"text/html": html, "text/plain": ""})

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


def roughly(seconds: float) -> str:
    """Return a duration as a person would say it, such as "50 s", "4 min", "2 h 20 min" or "35 h"."""
    if seconds < 55:
        return f"{max(0, round(seconds, -1)):.0f} s"
    minutes = max(1, round(seconds / 60))
    if minutes < 60:
        return f"{minutes} min"
    minutes = round(minutes, -1)
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 and minutes < 600 else f"{round(minutes / 60)} h"
