"""Ctrl-C and SIGTERM while a run trains: the current epoch may end if it ends soon."""

import signal
import threading
import time
from collections.abc import Callable

# All that may pass between the signal and the end; what a machine that is going away usually gives.
SECONDS = 20
# Of these, what the current epoch may take; the rest is for its checkpoint and for Drive.
EPOCH_SECONDS = 15


class Interruption:
    """Handle both signals inside a `with`; only the main thread can, elsewhere they do what they did before.

    A first signal is noted when the epoch will end in time, and raises KeyboardInterrupt otherwise; a second one
    always raises.
    """

    def __init__(self):
        self.at: float | None = None
        self._before = {}
        self._epoch_left = None

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception):
        for number, before in self._before.items():
            if before is not None:  # A handler that is not Python's cannot be put back.
                signal.signal(number, before)

    def allow(self, epoch_left: Callable[[], float] | None) -> None:
        """Set the callable that returns how many seconds the current epoch will still take; None lets none end."""
        self._epoch_left = epoch_left

    def check(self) -> None:
        """Raise KeyboardInterrupt if there was a signal and the epoch did not end in time after all."""
        if self.at is not None and time.monotonic() - self.at > EPOCH_SECONDS:
            raise KeyboardInterrupt

    def seconds_left(self) -> float | None:
        """Return what is left of `SECONDS` since the signal, or None if there was none."""
        return None if self.at is None else max(1.0, SECONDS - (time.monotonic() - self.at))

    def _handle(self, number, frame):
        first, self.at = self.at is None, self.at or time.monotonic()
        if not first or self._epoch_left is None or self._epoch_left() > EPOCH_SECONDS:
            raise KeyboardInterrupt
