"""Files and paths: atomic writes, retries, and an error of the disk in words.

Every call goes through `os`, where a test can make the Nth one fail, or kill the process after it.
"""

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from colabcnn.errors import Error

FULL = (errno.ENOSPC, errno.EDQUOT)
# The errors of a disk that is full, write-protected, forbidden or broken.
DISK_ERRORS = (*FULL, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)
DISK_ERRORS += (errno.ENOTCONN, errno.ECONNABORTED)
_PASSING_ERRORS = (errno.EIO, errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT, errno.EBUSY)
_PAUSES = (0.5, 1, 2)  # Seconds.


def expand(path: str | Path) -> Path:
    """Return a path that a person has named, with `~` for the home folder.

    Raises:
        Error: it is no path, or names a home folder that is nobody's.
    """
    try:
        if "\0" in os.fspath(path) or not os.fspath(path):
            raise ValueError  # An empty path would be the current folder.
        return Path(path).expanduser()
    except (TypeError, ValueError):
        raise Error(
            f"{path!r:.200} is no path; expected a str or a pathlib.Path that is not empty and has no NUL."
        ) from None
    except RuntimeError as error:
        raise Error(f"{path}: {error}; give the full path.") from None


def is_same_folder(local: str | Path, drive: str | Path) -> bool:
    """Return whether both are one folder.

    `drive` is not looked up, since a call to a Drive that hangs does not return: the process that may hang follows a
    link there.
    """
    return os.path.abspath(drive) in (os.path.abspath(local), os.path.realpath(local))


def check_folder(path: str | Path, expected: str) -> None:
    """Raise an `Error` unless there is a folder of that path; `expected` describes its content."""
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            return
        problem = "is a file"
    except (FileNotFoundError, NotADirectoryError):
        problem = "does not exist"
    except OSError as error:  # Drive may be lost.
        problem = f"cannot be read ({error.strerror})"
    raise Error(f"{path} {problem}; expected {expected}.")


def write_atomically(path: str | Path, content: bytes | str) -> None:
    """Replace a file's content; after a kill or on a full disk it has the old content or the new, never a part.

    Args:
        path: the file; its folder exists.
        content: bytes, or str written as UTF-8.

    Raises:
        OSError: an error of the disk; the new file is removed.
    """
    path, left = Path(path), memoryview(content.encode() if isinstance(content, str) else content)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(partial, path)
        _sync_folder(path.parent)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:  # The error of a write or an fsync has no name.
            error.filename = str(path)
        discard(partial)
        raise


def copy_atomically(source: str | Path, target: str | Path) -> None:
    """Copy a file with the same guarantee as `write_atomically`."""
    write_atomically(target, Path(source).read_bytes())


@contextlib.contextmanager
def disk_errors_readable(folder: Path, advice: str, every: bool = False) -> Iterator[None]:
    """Report a disk that fails in the `with` as one `Error`; the files that were written before are kept.

    Args:
        folder: the run's.
        advice: what to do.
        every: report every OSError, not only `DISK_ERRORS` and the folder's disappearance: nothing but the library runs
            in the `with`.
    """
    try:
        yield
    except OSError as error:
        is_gone = isinstance(error, FileNotFoundError) and not folder.exists()
        if not every and not is_gone and error.errno not in DISK_ERRORS:
            raise
        where = error.filename or folder
        raise Error(f"{where}: {error.strerror or error}. The run stays at its last checkpoint; {advice}.") from error


def move_aside(folder: str | Path, paths: Iterable[str | Path]) -> Path:
    """Move files of a folder into a new folder within it, so that nothing is lost.

    Args:
        folder: the run's folder.
        paths: files and folders below it; missing ones are skipped.

    Returns:
        The new folder, `moved-aside-<n>`.
    """
    number = 1
    while (target := Path(folder, f"moved-aside-{number}")).exists():
        number += 1
    target.mkdir()
    for path in map(Path, paths):
        with contextlib.suppress(FileNotFoundError):
            path.rename(target / path.name)
    return target


def remove_partials(folder: str | Path, names: Iterable[str]) -> None:
    """Remove the partial files that a kill during a write has left.

    Args:
        folder: their folder.
        names: patterns of the files' names, such as "history.csv" or "epoch-*"; other partial files are kept.
    """
    patterns = [f".{name}.*.partial" for name in names]
    for partial in Path(folder).glob(".*.partial"):
        if any(partial.match(pattern) for pattern in patterns):
            discard(partial)


def discard(path: str | Path) -> None:
    """Delete a file if possible; it is emptied first, since Drive's trash counts towards the quota."""
    with contextlib.suppress(OSError):
        os.truncate(path, 0)
    with contextlib.suppress(OSError):
        os.unlink(path)


def retried(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """Call a function, again after a temporary error, up to four calls in all; return its value."""
    for pause in _PAUSES:
        try:
            return function(*arguments, **keywords)
        except OSError as error:
            if error.errno not in _PASSING_ERRORS:
                raise
        time.sleep(pause)
    return function(*arguments, **keywords)


def _sync_folder(folder):
    """Sync the folder's entry to disk; otherwise a power failure may undo the rename."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder; the file itself is synced.
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
