"""Checkpoints: one file holds everything that a run needs to go on, and its name holds the file's SHA-256.

The format is safetensors: arrays and text, no pickle, so a checkpoint from someone else is data and never code.
"""

import copy
import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from colabcnn.errors import Error
from colabcnn.store.checkpoint_files import checkpoint_files, checkpoint_name, read_verified, retire
from colabcnn.store.files import write_atomically

_KEY = re.compile(r"(\w+)/(\d{4,})")


@dataclass
class Checkpoint:
    """The state of a run at the end of an epoch.

    Args:
        epoch: how many epochs are done.
        arrays: lists of arrays by group: `model` (the network's weights, in the order of `model.weights`), `optimizer`
            (in the order of `optimizer.variables`), and what else the run needs.
        metadata: JSON types.
        name: of the file that it was read from.
    """

    epoch: int
    arrays: dict[str, list[np.ndarray]]
    metadata: dict
    name: str = ""

    def weights_sha256(self):
        """Return the SHA-256, in hex, over the bytes of the network's weights in order."""
        sha256 = hashlib.sha256()
        for array in self.arrays["model"]:
            sha256.update(np.ascontiguousarray(array).data)
        return sha256.hexdigest()


def write_checkpoint(folder, checkpoint, good=None):
    """Write a checkpoint, then remove those that are older than the newest three good ones.

    Args:
        folder: where the run's checkpoints lie; made if missing.
        checkpoint: `Checkpoint`.
        good: set of the names in that folder known to verify; the new one's is added.

    Returns:
        The file's path.

    Raises:
        OSError: the disk's own; the older checkpoints stand.
    """
    folder, good = Path(folder), set() if good is None else good
    folder.mkdir(parents=True, exist_ok=True)
    # Keys go by position: Keras's variable names depend on what the process built before. safetensors writes the
    # memory as it lies, wrongly and without a word where it is not contiguous.
    arrays = {
        f"{group}/{index:04d}": np.require(array, requirements="C")
        for group, members in checkpoint.arrays.items()
        for index, array in enumerate(members)
    }
    metadata = {
        "epoch": str(checkpoint.epoch),
        "colabcnn": json.dumps(checkpoint.metadata, allow_nan=False),
    }
    content = safetensors.numpy.save(arrays, metadata)
    path = folder / checkpoint_name(checkpoint.epoch, content)
    write_atomically(path, content)
    good.add(path.name)
    retire(folder, good)
    return path


def read_checkpoint(path):
    """Read a checkpoint and verify it against the digest in its name.

    Raises:
        Error: why the file cannot be used.
    """
    path = Path(path)
    try:
        content = read_verified(path)
    except OSError as error:
        raise Error(f"{path.name} cannot be read ({error.strerror}).") from None
    try:
        loaded = safetensors.numpy.load(content)
        header_size = int.from_bytes(content[:8], "little")
        text = json.loads(content[8 : 8 + header_size])["__metadata__"]
        metadata, epoch = json.loads(text["colabcnn"]), int(text["epoch"])
        arrays = {}
        for group, index in sorted((match[1], int(match[2])) for match in map(_KEY.fullmatch, loaded)):
            arrays.setdefault(group, []).append(loaded[f"{group}/{index:04d}"])
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise Error(f"{path.name} is whole but not a checkpoint of this library ({error}).") from None
    return Checkpoint(epoch, arrays, metadata, path.name)


def newest_checkpoint(folder):
    """Return `(checkpoint, passed_over)`: the newest that verifies, or None, and, by path, why newer ones were not.

    Raises:
        OSError: the folder is there and cannot be listed.
    """
    passed_over = {}
    for path in checkpoint_files(folder):
        try:
            return read_checkpoint(path), passed_over
        except Error as error:
            passed_over[path] = str(error)
    return None, passed_over


class CheckpointWriter:
    """Write checkpoints in the background, one at a time, so that training waits for none of them.

    Args:
        folder: where the run's checkpoints lie.
    """

    def __init__(self, folder):
        self._folder = folder
        self._good = set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing = None

    def write(self, checkpoint):
        """Wait for the one before, then begin to write; the arrays must not change any more, the metadata may.

        Raises:
            OSError: the disk's own, of the one before.
        """
        self.wait()
        checkpoint = replace(checkpoint, metadata=copy.deepcopy(checkpoint.metadata))
        self._writing = self._thread.submit(write_checkpoint, self._folder, checkpoint, self._good)

    def wait(self):
        """Wait until the last one is on disk.

        Raises:
            OSError: the disk's own; the older checkpoints stand.
        """
        writing, self._writing = self._writing, None
        if writing:
            writing.result()
