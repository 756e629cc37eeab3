"""Ctrl-C and SIGTERM while a run trains: the current epoch may end if it ends soon."""

import signal
import threading
import time
from collections.abc import Callable

# The longest time from the signal to the end; a machine that shuts down usually allows it.
SECONDS = 20
# The current epoch's part of these seconds; the rest is for its checkpoint and for Drive.
EPOCH_SECONDS = 15


class Interruption:
    """Handle both signals inside a `with`, in the main thread; other threads cannot, and change nothing.

    A first signal is recorded if the epoch will end in time; otherwise it raises KeyboardInterrupt. A second one always
    raises.

    Args:
        info: callable that shows a message.
    """

    def __init__(self, info: Callable[[str], None]):
        self.at: float | None = None
        self._info = info
        self._old_handlers = {}
        self._epoch_left = None

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old_handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception):
        for number, handler in self._old_handlers.items():
            if handler is not None:  # A handler that is not Python's cannot be restored.
                signal.signal(number, handler)

    def allow(self, epoch_left: Callable[[], float] | None) -> None:
        """Set the callable that returns the seconds left of the current epoch; with None no epoch may end."""
        self._epoch_left = epoch_left

    def check(self) -> None:
        """Raise KeyboardInterrupt if there was a signal and the epoch did not end in time."""
        if self.at is not None and time.monotonic() - self.at > EPOCH_SECONDS:
            raise KeyboardInterrupt

    def seconds_left(self) -> float | None:
        """Return the seconds left of `SECONDS` since the signal, or None if there was none."""
        return None if self.at is None else max(1.0, SECONDS - (time.monotonic() - self.at))

    def _handle(self, number, frame):
        first, self.at = self.at is None, self.at or time.monotonic()
        if not first or self._epoch_left is None or self._epoch_left() > EPOCH_SECONDS:
            raise KeyboardInterrupt
        self._info(
            f"Stops soon: an epoch that ends within {EPOCH_SECONDS} s is finished. A second Ctrl-C or stop ends at "
            "once."
        )
