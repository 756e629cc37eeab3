"""Files named `epoch-<number>-<SHA-256>.safetensors`: found, verified and retired by what their names say.

What is in them is `checkpoint.py`'s matter.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from colabcnn.errors import Error

KEEP = 3
# What lies beside the checkpoints; all but test.json can be written again from one of those.
SMALL_FILES = ("run.json", "history.csv", "curves.png", "model.keras", "test.json")
# Behind the name of a checkpoint that came from Drive, until it is seen to be of the right run.
FETCHED_SUFFIX = ".fetched"
_NAME = re.compile(r"epoch-(\d{6,18})-([0-9a-f]{64})\.safetensors", re.ASCII)


def checkpoint_name(epoch: int, content: bytes) -> str:
    """Return the name of the file that holds `content`, bytes, after an epoch."""
    return f"epoch-{epoch:06d}-{hashlib.sha256(content).hexdigest()}.safetensors"


def is_checkpoint_name(name: Any) -> bool:
    """Return whether a text is a checkpoint's name, and so no path that leads elsewhere."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def epoch_of(path: str | Path) -> int:
    """Return the epoch in a checkpoint's name."""
    return int(Path(path).name.split("-")[1])


def checkpoint_files(folder: str | Path) -> list[Path]:
    """Return the paths in a folder that are named like checkpoints, newest first; foreign files are skipped."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [Path(folder, name) for name in newest_first(filter(_NAME.fullmatch, names))]


def newest_first(names: Iterable[str]) -> list[str]:
    """Return checkpoints' names by falling epoch, which a name has with six digits or more."""
    return sorted(names, key=lambda name: (epoch_of(name), name), reverse=True)


def read_verified(path: str | Path) -> bytes:
    """Read a checkpoint's bytes and verify them against the digest in its name.

    Raises:
        OSError: it cannot be read.
        Error: it was read, and is not what its name says.
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


def retire(folder: str | Path, good: set[str], remove: Callable[[Path], None] = os.unlink) -> None:
    """Remove the checkpoints that are older than the newest `KEEP` good ones.

    Args:
        folder: where the checkpoints lie.
        good: set of names known to verify. Where it holds fewer than `KEEP`, older files are read, and the names of
            those that verify are added.
        remove: callable that removes a path.

    Raises:
        OSError: the disk's own; what was not removed yet is kept.
    """
    found = 0
    for path in checkpoint_files(folder):
        if found >= KEEP:
            with contextlib.suppress(FileNotFoundError):
                remove(path)
        elif path.name in good or verifies(path):
            good.add(path.name)
            found += 1


def verifies(path: str | Path) -> bool:
    """Return whether a checkpoint can be read and is what its name says."""
    try:
        read_verified(path)
    except (Error, OSError):
        return False
    return True
