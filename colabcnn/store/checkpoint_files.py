"""Files named `epoch-<number>-<SHA-256>.safetensors`: found, verified and retired by their names.

`checkpoint.py` reads and writes their contents.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from colabcnn.errors import Error

KEEP = 3
# The files beside the checkpoints; all but test.json can be written again from a checkpoint.
TEST_JSON = "test.json"
SMALL_FILES = ("run.json", "history.csv", "curves.png", "model.keras", TEST_JSON)
# Added to the name of a checkpoint from Drive, until the caller has checked that it is the right run's.
FETCHED_SUFFIX = ".fetched"
_NAME = re.compile(r"epoch-(\d{6,18})-([0-9a-f]{64})\.safetensors", re.ASCII)


def checkpoint_name(epoch: int, content: bytes) -> str:
    """Return the name of the file that holds `content`, bytes, after an epoch."""
    return f"epoch-{epoch:06d}-{hashlib.sha256(content).hexdigest()}.safetensors"


def epoch_of(path: str | Path) -> int:
    """Return the epoch in a checkpoint's name."""
    return int(Path(path).name.split("-")[1])


def checkpoint_files(folder: str | Path, known: str | None = None) -> list[Path]:
    """Return the paths in a folder that are named like checkpoints, newest first; other files are skipped.

    Args:
        folder: the folder.
        known: a name that the folder may have although its listing lacks it, or None.

    Raises:
        OSError: the folder exists and cannot be listed.
    """
    names = {known or ""}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        names.update(os.listdir(folder))
    # A name that matches has no path to another folder. An epoch has six digits or more.
    found = [Path(folder, name) for name in names if _NAME.fullmatch(name)]
    return sorted(found, key=lambda path: (epoch_of(path), path.name), reverse=True)


def read_verified(path: str | Path) -> bytes:
    """Read a checkpoint's bytes and verify them against the digest in its name.

    Raises:
        OSError: it cannot be read.
        Error: its bytes do not have the digest in its name.
    """
    path = Path(path)
    name = _NAME.fullmatch(path.name.removesuffix(FETCHED_SUFFIX))
    if not name:
        raise Error(f"{path.name} is not a checkpoint's name; expected epoch-<number>-<SHA-256>.safetensors.")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != name[2]:
        raise Error(
            f"{path.name} is truncated or altered: its {len(content)} bytes do not have the SHA-256 in its name."
        )
    return content


def retire(folder: str | Path, good: set[str], remove: Callable[[Path], None] = os.unlink, keep: int = KEEP) -> None:
    """Remove the checkpoints that are older than the newest `keep` good ones.

    Args:
        folder: the folder of the checkpoints.
        good: set of names known to verify. If it holds fewer than `keep`, older files are read, and the names of those
            that verify are added.
        remove: callable that removes a path.
        keep: how many good ones stay.

    Raises:
        OSError: an error of the disk; the files that were not removed yet are kept.
    """
    kept = 0
    for path in checkpoint_files(folder):
        if kept >= keep:
            with contextlib.suppress(FileNotFoundError):
                remove(path)
        elif path.name in good or verifies(path):
            good.add(path.name)
            kept += 1


def verifies(path: str | Path) -> bool:
    """Return whether a checkpoint can be read and has the digest in its name."""
    try:
        read_verified(path)
    except (Error, OSError):
        return False
    return True
