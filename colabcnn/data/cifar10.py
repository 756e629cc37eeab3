"""CIFAR-10 from its official files, each checked before it is opened."""

import contextlib
import fcntl
import hashlib
import os
import pickle
import signal
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from colabcnn import colab, output
from colabcnn.errors import Error
from colabcnn.own_process import abandon
from colabcnn.store.files import DISK_ERRORS, check_folder, expand, write_atomically

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
FOLDER_NAME = "cifar-10-batches-py"
ARCHIVE_NAME = "cifar-10-python.tar.gz"
# The download page of CIFAR-10's author; Keras checks the same SHA-256.
ARCHIVE_URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE_NAME}"
ARCHIVE_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9354329d7fe0b5c001ce"
FILE_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}

# For the archive, 170 MB, to or from Drive.
DRIVE_SECONDS = 120

Labelled = tuple[np.ndarray, np.ndarray]
"""Images `(n, 32, 32, 3) uint8` with their labels, `(n,) int64`."""


def load_cifar10(folder: str | Path | None = None) -> tuple[Labelled, Labelled]:
    """Load CIFAR-10.

    Args:
        folder: the official `cifar-10-batches-py` folder or the one that holds it; None takes `$CIFAR10_DIR`, else
            Keras's cache, else downloads the official archive (170 MB) into it. In Colab with Drive mounted, the
            archive is kept on Drive, and the next session copies it from there.

    Returns:
        `(train_images, train_labels), (test_images, test_labels)`: images `(50000, 32, 32, 3) uint8` and
        `(10000, 32, 32, 3) uint8`, labels `(n,) int64` from 0 to 9.

    Raises:
        Error: a file is missing, truncated, altered or not the official one; no network; no room.
    """
    folder = folder or os.environ.get("CIFAR10_DIR") or _cached_folder() or _download()
    folder = expand(folder)
    if (folder / FOLDER_NAME).is_dir():
        folder = folder / FOLDER_NAME
    check_folder(folder, f"a folder with the official {FOLDER_NAME} files")
    images = np.empty((60000, 32, 32, 3), dtype=np.uint8)
    labels = np.empty(60000, dtype=np.int64)

    def read(index, name):
        part = slice(index * 10000, (index + 1) * 10000)
        planes, labels[part] = _read_batch(folder / name)
        for channel in range(3):  # Copying each plane takes a third of the time of a transposed copy.
            images[part, ..., channel] = planes[:, channel]

    with ThreadPoolExecutor() as threads:  # Reading, digesting and copying run in parallel.
        list(threads.map(read, range(6), (*TRAIN_FILES, "test_batch")))
    return (images[:50000], labels[:50000]), (images[50000:], labels[50000:])


def _read_batch(path):
    """Return one official file's images, `(10000, 3, 32, 32) uint8`, and labels.

    The files are pickles, so the MD5 is checked before unpickling.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Error(
            f"{path} cannot be read ({error.strerror}); expected the official {FOLDER_NAME} files in {path.parent}."
        ) from None
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != FILE_MD5[path.name]:
        raise Error(
            f"{path.name} is not the official CIFAR-10 file: {len(content)} bytes with MD5 {found}, expected "
            f"{FILE_MD5[path.name]}; delete {path.parent} and fetch CIFAR-10 again."
        )
    batch = pickle.loads(content, encoding="bytes")
    return batch[b"data"].reshape(-1, 3, 32, 32), batch[b"labels"]


def _cache():
    return expand(os.environ.get("KERAS_HOME") or "~/.keras") / "datasets"


def _cached_folder():
    """Return the folder in Keras's cache that has all files, new or old, or None."""
    for folder in (_cache() / f"{FOLDER_NAME}-target" / FOLDER_NAME, _cache() / FOLDER_NAME):
        if all((folder / name).is_file() for name in FILE_MD5):
            return folder
    return None


def _download():
    """Fetch the archive, from Drive if it is kept there, and unpack its checked files into Keras's cache.

    Keras writes a download under its final name: a second process waits here, and uses what the first one has unpacked.
    """
    archive = _cache() / ARCHIVE_NAME
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(archive.parent, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # Some network file systems have no locks.
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    output.write("Another process downloads CIFAR-10; waiting for it.")
                    fcntl.flock(lock, fcntl.LOCK_EX)
            folder = _cached_folder() or _fetch_and_unpack(archive)
        finally:
            os.close(lock)
    except OSError as error:
        raise Error(
            f"CIFAR-10 could not be kept in {archive.parent} ({error.strerror or error}); it needs 360 MB there: "
            f"make room, or point CIFAR10_DIR at a folder with the official {FOLDER_NAME} files."
        ) from None
    return folder


def _fetch_and_unpack(archive):
    drive, content, is_on_drive = colab.mounted_drive(), None, False
    drive_copy = drive / "colabcnn" / ARCHIVE_NAME if drive else None
    if drive_copy:
        output.write("Looks for CIFAR-10 on Drive.")
        failure = "CIFAR-10's copy on Drive cannot be read, so CIFAR-10 is downloaded"
        content = _call_drive('[ ! -e "$0" ] || exec cat "$0"', drive_copy, failure)
        if content and hashlib.sha256(content).hexdigest() == ARCHIVE_SHA256:
            write_atomically(archive, content)
            is_on_drive = True
    archive = _get_archive()
    folder = _unpack(archive)
    if content is not None and not is_on_drive:
        failure = "CIFAR-10 is not kept on Drive, so the next session downloads it"
        # If this process is killed, `cat` ends in order, with a part of the archive.
        write = 'cat > "$0.partial" && [ "$(wc -c < "$0.partial")" = "$1" ] && mv "$0.partial" "$0"'
        make = f'mkdir -p "$(dirname "$0")" && {write} || {{ rm -f "$0.partial"; exit 1; }}'
        _call_drive(make, drive_copy, failure, archive.read_bytes())
    archive.unlink()
    return folder


def _call_drive(script, path, failure, content=b""):
    """Return what a shell script prints, given a path on Drive and its input; report a failure and return None.

    A call to a Drive that hangs cannot be cancelled, so another process makes it and is abandoned. The copy on Drive
    only saves the next session a download.
    """
    command, pipe = ["sh", "-c", script, str(path), str(len(content))], subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
    try:
        found, reason = process.communicate(content, timeout=DRIVE_SECONDS)
    except BaseException as error:  # Ctrl-C, too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for stream in filter(None, (process.stdin, process.stdout, process.stderr)):
            with contextlib.suppress(OSError):
                stream.close()
        abandon(process)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        found, reason = b"", f"{path} took more than {DRIVE_SECONDS} s".encode()
    if process.returncode == 0:
        return found
    output.write(f"{failure}: {reason.decode(errors='replace').strip()}.")
    return None


def _get_archive():
    from keras.utils import get_file

    try:
        # It checks an existing file's SHA-256 and downloads the file again if that differs.
        return Path(get_file(ARCHIVE_NAME, ARCHIVE_URL, file_hash=ARCHIVE_SHA256, cache_dir=_cache().parent))
    except Exception as error:  # Keras raises bare Exceptions and ValueErrors here.
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        (_cache() / ARCHIVE_NAME).unlink(missing_ok=True)
        raise Error(
            f"CIFAR-10 could not be downloaded: {str(error).rstrip('.')}. Try again with a network, or point "
            f"CIFAR10_DIR at the folder of the official {FOLDER_NAME} files.",
            "no_data",
        ) from None


def _unpack(archive):
    """Write only the files that this library reads, each checked."""
    folder = _cache() / f"{FOLDER_NAME}-target" / FOLDER_NAME
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:  # Its SHA-256 was checked.
        for name in FILE_MD5:
            write_atomically(folder / name, tar.extractfile(f"{FOLDER_NAME}/{name}").read())  # pyright: ignore[reportOptionalMemberAccess]
    return folder
