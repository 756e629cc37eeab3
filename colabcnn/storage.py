"""Bring bytes to disk whole or not at all."""

import contextlib
import errno
import os
import shutil
from pathlib import Path

# What a disk says that is full, write-protected, not ours or broken.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENOTCONN)


def write_atomically(path, content):
    """Replace a file's content, so that a kill or a full disk leaves the old content or the new, never a part.

    Args:
        path: the file; its folder exists.
        content: bytes, or str written as UTF-8.

    Raises:
        OSError: the disk's own; nothing is left of the new file.
    """
    content = content.encode() if isinstance(content, str) else content
    with _replacing(Path(path)) as file:
        file.write(content)


def remove_partial(path):
    """Remove what a kill in the middle of writing `path` left beside it."""
    for partial in path.parent.glob(f".{path.name}.*.partial"):
        partial.unlink(missing_ok=True)


def copy_atomically(source, target):
    """Copy a file with the same promise as `write_atomically`."""
    with open(source, "rb") as reader, _replacing(Path(target)) as file:
        shutil.copyfileobj(reader, file, 1 << 20)


@contextlib.contextmanager
def _replacing(path):
    """Open a partial file beside `path` that takes its place at the end, and is removed if there is an exception."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _sync_folder(folder):
    """Bring the folder's entry to disk; without it a power cut may undo the rename."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
