"""One line that updates in place, in a terminal and in a notebook."""

import shutil
import sys
import time

REFRESH_SECONDS = 0.5
LOG_SECONDS = 10


class ProgressLine:
    """Show the newest state in one line.

    In a terminal the line is written over itself; in a notebook one output is updated; elsewhere (a log file) a line
    is printed at the end of an epoch, at most one every `LOG_SECONDS`.

    Args:
        quiet: show nothing at all.
    """

    def __init__(self, quiet=False):
        self._quiet = quiet
        self._shown_at = float("-inf")
        self._display = None if quiet else _notebook_display()
        self._open = False
        self._terminal = not quiet and self._display is None and sys.stdout.isatty()

    def say(self, message):
        """Print a message on a line of its own."""
        self._open = False
        if not self._quiet:
            self._print(f"\r\x1b[K{message}" if self._terminal else message)

    def end(self):
        """End the line, so that whatever is printed next stands below it."""
        if self._open:
            self._print()
            self._open = False

    def update(self, text, *, milestone=False, last=False):
        """Show a state.

        Args:
            text: callable that returns the line; called only when it is shown.
            milestone: the end of an epoch, which a log file shows too.
            last: the final state, always shown.
        """
        live = self._terminal or self._display is not None
        pause = REFRESH_SECONDS if live else LOG_SECONDS
        if self._quiet or not (last or ((live or milestone) and time.monotonic() - self._shown_at >= pause)):
            return
        self._shown_at = time.monotonic()
        if self._display is not None:
            self._display.update({"text/plain": text()}, raw=True)
        elif self._terminal:
            columns = shutil.get_terminal_size().columns
            self._print(f"\r\x1b[K{text()[: columns - 1]}", end="\n" if last else "")
            self._open = not last
        else:
            self._print(text())

    def _print(self, *text, end="\n"):
        try:
            print(*text, end=end, flush=True)
        except BrokenPipeError:
            # Whoever read our output has gone, as `| head` does; training is worth more than what it says.
            self._quiet = True


def _notebook_display():
    """Return an updatable output where a Jupyter kernel runs us, else None."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if not hasattr(shell, "kernel"):
        return None
    from IPython.display import display

    return display({"text/plain": ""}, raw=True, display_id=True)


def duration(seconds):
    """Return a duration in the two units that matter, such as "54 s", "3 min 20 s" or "10 h 30 min"."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
