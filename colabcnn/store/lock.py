"""Only one run at a time trains in a folder, on this machine."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import weakref
from pathlib import Path

from colabcnn.errors import Error

_IN_USE = "is being {} by process"
TRAINED_BY = _IN_USE.format("trained in")
"""In the message about a folder in which another process trains."""

# A forked child shares its parent's locks, and would keep them after the parent was killed.
_locks: weakref.WeakSet[Lock] = weakref.WeakSet()
os.register_at_fork(after_in_child=lambda: [lock.release() for lock in list(_locks)])


class Lock:
    """Lock a folder until `release`, or until the process dies.

    Args:
        folder: an existing folder; a file named `lock` is made in it.
        activity: the folder's use, for the message.

    Raises:
        Error: another process has locked it.
    """

    def __init__(self, folder: str | Path, activity: str = "trained in"):
        self._process = os.getpid()
        self._descriptor: int | None = os.open(Path(folder, "lock"), os.O_RDWR | os.O_CREAT, 0o666)
        _locks.add(self)
        try:
            self._lock(self._descriptor, folder, activity)
        except BaseException:  # Ctrl-C, too: the process may live on.
            self.release()
            raise

    def _lock(self, descriptor, folder, activity):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                holder = os.read(descriptor, 32).decode(errors="replace").strip()
                raise Error(
                    f"{folder} {_IN_USE.format(activity)} {holder or '(unknown)'}; wait for it, end it, or choose "
                    "another folder."
                ) from None
            # Some network file systems have no locks: a second run is not refused there.
        with contextlib.suppress(OSError):
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Release the folder; releasing again does nothing."""
        if self._descriptor is None:
            return
        # Closing alone is not enough: a child that was forked meanwhile shares the lock and may live longer.
        if os.getpid() == self._process:
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)
        self._descriptor = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.release()
