"""Checkpoint files: one file holds everything that a run needs to go on, and its name holds the file's SHA-256.

The format is safetensors: arrays and text, no pickle, so a checkpoint from someone else is data and never code.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from colabcnn.errors import Error
from colabcnn.storage import write_atomically

KEEP = 3
_GROUPS = ("model", "optimizer", "best")
_NAME = re.compile(r"epoch-(\d{6})-([0-9a-f]{64})\.safetensors")


@dataclass
class Checkpoint:
    """The state of a run at the end of an epoch.

    Args:
        epoch: how many epochs are done.
        model: the network's weights, in the order of `model.weights`.
        optimizer: the optimizer's variables, in the order of `optimizer.variables`.
        best: the weights of the epoch with the best validation accuracy, as `model`.
        metadata: JSON types: `run` (what `run.json` holds), `history` (columns), `complete`, `reason`.
    """

    epoch: int
    model: list[np.ndarray]
    optimizer: list[np.ndarray]
    best: list[np.ndarray]
    metadata: dict

    def weights_sha256(self):
        """Return the SHA-256, in hex, over the bytes of the network's weights in order."""
        sha256 = hashlib.sha256()
        for array in self.model:
            sha256.update(np.ascontiguousarray(array).data)
        return sha256.hexdigest()


def write_checkpoint(folder, checkpoint):
    """Write a checkpoint, then remove all but the newest `KEEP`.

    Args:
        folder: where the run's checkpoints lie; made if missing.
        checkpoint: `Checkpoint`.

    Returns:
        The file's path.

    Raises:
        OSError: the disk's own; the older checkpoints stand.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Keys go by position: Keras's variable names depend on what the process built before. safetensors writes the
    # memory as it lies, wrongly and without a word where it is not contiguous.
    arrays = {
        f"{group}/{index:04d}": np.require(array, requirements="C")
        for group in _GROUPS
        for index, array in enumerate(getattr(checkpoint, group))
    }
    metadata = {"epoch": str(checkpoint.epoch), "colabcnn": json.dumps(checkpoint.metadata, allow_nan=False)}
    content = safetensors.numpy.save(arrays, metadata)
    path = folder / f"epoch-{checkpoint.epoch:06d}-{hashlib.sha256(content).hexdigest()}.safetensors"
    write_atomically(path, content)
    for old in checkpoint_files(folder)[KEEP:]:
        old.unlink(missing_ok=True)
    return path


def read_checkpoint(path):
    """Read a checkpoint and verify it against the digest in its name.

    Raises:
        Error: why the file cannot be used.
    """
    path = Path(path)
    name = _NAME.fullmatch(path.name)
    if not name:
        raise Error(f"{path.name} is not a checkpoint's name; expected epoch-<number>-<SHA-256>.safetensors.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Error(f"{path.name} cannot be read ({error.strerror}).") from None
    if hashlib.sha256(content).hexdigest() != name[2]:
        raise Error(f"{path.name} is cut or altered: its {len(content)} bytes do not have the SHA-256 in its name.")
    try:
        arrays = safetensors.numpy.load(content)
        header_size = int.from_bytes(content[:8], "little")
        text = json.loads(content[8 : 8 + header_size])["__metadata__"]
        metadata, epoch = json.loads(text["colabcnn"]), int(text["epoch"])
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise Error(f"{path.name} is whole but not a checkpoint of this library ({error}).") from None
    groups = {group: [arrays[key] for key in sorted(arrays) if key.startswith(f"{group}/")] for group in _GROUPS}
    return Checkpoint(epoch, metadata=metadata, **groups)


def checkpoint_files(folder):
    """Return the paths in a folder that are named like checkpoints, newest first; foreign files are passed over."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)


def newest_checkpoint(folder):
    """Return `(checkpoint, passed_over)`: the newest that verifies, or None, and, by path, why newer ones were not."""
    passed_over = {}
    for path in checkpoint_files(folder):
        try:
            return read_checkpoint(path), passed_over
        except Error as error:
            passed_over[path] = str(error)
    return None, passed_over
