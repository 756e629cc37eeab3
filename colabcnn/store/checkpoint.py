"""Checkpoints: one file holds everything that a run needs to continue, and its name holds its SHA-256.

The format is safetensors: arrays and text, no pickle. So a checkpoint from someone else is data and never code.
"""

import hashlib
import json
import re
from concurrent import futures
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from colabcnn.errors import MALFORMED, Error, UnknownFormatError
from colabcnn.experiments.checks import check_choice
from colabcnn.experiments.settings import without_repetition
from colabcnn.store.checkpoint_files import checkpoint_files, checkpoint_name, read_verified, retire
from colabcnn.store.files import write_atomically
from colabcnn.store.run_record import FORMAT, check_format

KINDS = ("run", "fit", "shared")
_KEY = re.compile(r"(\w+)/\d{4,}")


@dataclass
class Checkpoint:
    """The state of a run at the end of an epoch.

    Args:
        epoch: how many epochs are done.
        kind: "run", of `colabcnn.run`; "fit", of `CheckpointToDrive`; or "shared", a run's best weights alone.
        arrays: lists of arrays by group: `model` (the network's weights, in the order of `model.weights`), `optimizer`
            (in the order of `optimizer.variables`), and others that the run needs.
        metadata: JSON types.
        name: of the file, if it was read from one.
    """

    epoch: int
    kind: str
    arrays: dict[str, list[np.ndarray]]
    metadata: dict[str, Any]
    name: str = ""

    def weights_sha256(self) -> str:
        """Return the SHA-256, in hex, over the bytes of the network's weights in order."""
        sha256 = hashlib.sha256()
        for array in self.arrays["model"]:
            sha256.update(np.ascontiguousarray(array).data)
        return sha256.hexdigest()


def checkpoint_bytes(checkpoint: Checkpoint) -> bytes:
    """Return the bytes of a checkpoint's file; the same checkpoint gives the same bytes."""
    # Keys are positions: Keras's variable names depend on what the process built before. safetensors writes an array's
    # memory as it is, so one that is not contiguous would be written wrongly, without an error.
    arrays = {
        f"{group}/{index:04d}": np.require(array, requirements="C")
        for group, members in checkpoint.arrays.items()
        for index, array in enumerate(members)
    }
    # One entry: safetensors writes several in an order that differs from call to call.
    text = {"format": FORMAT, "kind": checkpoint.kind, "epoch": checkpoint.epoch, "metadata": checkpoint.metadata}
    return safetensors.numpy.save(arrays, {"colabcnn": json.dumps(text, allow_nan=False)})


def write_checkpoint(folder: str | Path, checkpoint: Checkpoint, good: set[str] | None = None) -> Path:
    """Write a checkpoint, then remove those that are older than the newest three good ones.

    Args:
        folder: the folder of the run's checkpoints; made if missing, in the run's folder.
        checkpoint: `Checkpoint`.
        good: set of the names in that folder known to verify; the new one is added.

    Returns:
        The file's path.

    Raises:
        OSError: an error of the disk; the older checkpoints are kept.
    """
    folder, good = Path(folder), set() if good is None else good
    folder.mkdir(exist_ok=True)  # Without parents: a run's folder that has vanished is an error.
    content = checkpoint_bytes(checkpoint)
    path = folder / checkpoint_name(checkpoint.epoch, content)
    write_atomically(path, content)
    good.add(path.name)
    retire(folder, good)
    return path


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint and verify it against the digest in its name.

    Raises:
        UnknownFormatError: another version wrote it, in another format.
        Error: the file cannot be used, and why.
    """
    path = Path(path)
    try:
        content = read_verified(path)
    except OSError as error:
        raise Error(f"{path.name} cannot be read ({error.strerror}).") from None
    return replace(parse_checkpoint(content, path.name), name=path.name)


def parse_checkpoint(content: bytes, where: str) -> Checkpoint:
    """Return the checkpoint in a file's bytes.

    Args:
        content: of the file, which may come from someone else.
        where: the file's name for a message.

    Raises:
        UnknownFormatError: another version wrote it, in another format.
        Error: the file is not a checkpoint, or is truncated.
    """
    try:
        loaded = safetensors.numpy.load(content)
        header = _load_json(content[8 : 8 + int.from_bytes(content[:8], "little")])
        text = _load_json(header["__metadata__"]["colabcnn"])
        check_format(text, where)
        epoch, kind, metadata = text["epoch"], text["kind"], text["metadata"]
        check_choice("its kind", kind, *KINDS)
        if type(epoch) is not int or not isinstance(metadata, dict):
            raise Error("its epoch is not a whole number, or its metadata is not a dict")
        arrays = {}
        matches = map(_KEY.fullmatch, loaded)
        for group in sorted(m[1] for m in matches):  # pyright: ignore[reportOptionalSubscript]  # A TypeError, below.
            members = arrays.setdefault(group, [])
            members.append(loaded[f"{group}/{len(members):04d}"])
    except UnknownFormatError:
        raise
    except (Error, safetensors.SafetensorError, *MALFORMED) as error:
        reason = str(error) if isinstance(error, (Error, safetensors.SafetensorError)) else type(error).__name__
        raise Error(f"{where} is not a checkpoint of this library ({reason.rstrip('.')[:200]}).") from None
    return Checkpoint(epoch, kind, arrays, metadata)


def _load_json(text):
    """Read JSON as `checkpoint_bytes` writes it: no name twice, no NaN."""
    return json.loads(text, object_pairs_hook=without_repetition, parse_constant=_refuse_constant)


def _refuse_constant(name):
    raise Error(f"{name} is in it")


def newest_checkpoint(folder: str | Path) -> tuple[Checkpoint | None, dict[Path, str]]:
    """Return `(checkpoint, skipped)`: the newest that verifies, or None; and by path, why newer ones were skipped.

    Raises:
        UnknownFormatError: a checkpoint has another version's format.
        OSError: the folder exists and cannot be listed.
    """
    skipped = {}
    for path in checkpoint_files(folder):
        try:
            return read_checkpoint(path), skipped
        except UnknownFormatError:
            raise
        except Error as error:
            skipped[path] = str(error)
    return None, skipped


class CheckpointWriter:
    """Write checkpoints in the background, one at a time, so that training does not wait.

    Args:
        folder: the folder of the run's checkpoints.
    """

    def __init__(self, folder: str | Path):
        self._folder = folder
        self._good = set()
        self._thread = futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing = None

    def write(self, checkpoint: Checkpoint) -> None:
        """Wait for the previous checkpoint, then begin to write; the arrays must not change any more, the metadata may.

        Raises:
            OSError: an error of the disk, from the previous checkpoint.
        """
        self.wait()
        # As JSON at once: what JSON does not have is an error here, and not in the thread.
        checkpoint = replace(checkpoint, metadata=json.loads(json.dumps(checkpoint.metadata, allow_nan=False)))
        self._writing = self._thread.submit(write_checkpoint, self._folder, checkpoint, self._good)

    def wait(self) -> None:
        """Wait until the last checkpoint is on disk.

        Raises:
            OSError: an error of the disk; the older checkpoints are kept.
        """
        if self._writing:
            futures.wait([self._writing])  # Interrupted here, the next call still waits for the same file.
            writing, self._writing = self._writing, None
            writing.result()
