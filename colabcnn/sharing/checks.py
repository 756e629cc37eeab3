"""What a file that somebody shared must be like, before anything of it is used."""

import hashlib
import json
import math
import re

import numpy as np

from colabcnn.errors import Error
from colabcnn.experiments.catalog import find_experiment
from colabcnn.store.checkpoint import Checkpoint, parse_checkpoint
from colabcnn.store.history import COLUMNS
from colabcnn.store.run_record import RunRecord

# The final network with everything that is needed to continue makes 48 MB.
MAX_BYTES = 1 << 30
# CIFAR-10 has 60,000 images; of synthetic ones a million can be asked for.
_MAX_TRAIN_SIZE, _MAX_VAL_SIZE, _MAX_LAYERS = 1_000_000, 60_000, 100
# Devices and times are shown in tables and on terminals: nothing that Markdown or a terminal would act upon.
_PLAIN = re.compile(r"[\w .,;:()/@+-]{1,200}", re.ASCII)
_TO_CONTINUE = {"model", "optimizer", "best", "callbacks"}


def content_digest(checkpoint: Checkpoint) -> str:
    """Return the SHA-256, hex, over a checkpoint's epoch, kind, metadata and arrays, without that digest itself.

    safetensors has no checksum, and a file that is shared can be renamed: so it has its digest inside.
    """
    sha256 = hashlib.sha256()
    metadata = {name: value for name, value in checkpoint.metadata.items() if name != "sha256"}
    sha256.update(json.dumps([checkpoint.epoch, checkpoint.kind, metadata], sort_keys=True).encode())
    for group in sorted(checkpoint.arrays):
        for array in checkpoint.arrays[group]:
            sha256.update(f"{group} {array.dtype.str} {array.shape}".encode())
            sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()


def read_shared(content: bytes) -> tuple[Checkpoint, RunRecord]:
    """Read and check the bytes of a file that `export` has written.

    Returns:
        `(Checkpoint, RunRecord)`.

    Raises:
        Error: says what is wrong with it.
    """
    if content[:1] in (b"<", b"P", b"") or len(content) < 8:
        raise Error(f"the file is {_kind(content)}; expected a file that `python -m colabcnn export` wrote.")
    checkpoint = parse_checkpoint(content, "the file")
    if checkpoint.kind not in ("run", "shared"):
        raise Error(f"the file is a checkpoint of kind {checkpoint.kind!r}; expected one that `export` wrote.")
    try:
        digest = checkpoint.metadata.get("sha256")
        if digest is None:
            raise Error("the file has no SHA-256 inside; expected one that `python -m colabcnn export` wrote.")
        if digest != content_digest(checkpoint):
            raise Error("the file is altered: its arrays and its text do not have the SHA-256 that is inside.")
        record = RunRecord.from_json(checkpoint.metadata["run"], "the file")
        _check_record(record, len(content))
        _check_history(checkpoint.metadata["history"], checkpoint.epoch)
        _check_state(checkpoint, record)
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError):
        raise Error("the file does not describe a run; it was not made by `export`.") from None
    return checkpoint, record


def _check_record(record, size):
    experiment = find_experiment(record.experiment)
    agrees = (
        len(experiment.filters) * len(experiment.kernel_sizes) <= _MAX_LAYERS
        # Its weights are in the file as they are: a network that is larger than the file was never trained.
        and 4 * experiment.parameter_count() <= size
        and 1 <= record.train_size <= _MAX_TRAIN_SIZE
        and 1 <= record.val_size <= _MAX_VAL_SIZE
        and record.holdout <= _MAX_VAL_SIZE
        and all(_PLAIN.fullmatch(start.device) and _PLAIN.fullmatch(start.time) for start in record.starts)
    )
    if not agrees:
        raise ValueError


def _check_history(history, epoch):
    if set(history) != set(COLUMNS) or not all(isinstance(column, list) for column in history.values()):
        raise ValueError
    numbers = [value for column in history.values() for value in column]
    if not epoch or history["epoch"] != list(range(1, epoch + 1)) or len(numbers) != epoch * len(COLUMNS):
        raise Error("the file's history is not that of a run: expected its epochs, counted from 1.")
    accuracies = history["accuracy"] + history["val_accuracy"]
    if not all(map(_is_number, numbers)) or not all(0 <= value <= 1 for value in accuracies):
        raise Error("the file's history is not that of a run: expected finite numbers, accuracies from 0 to 1.")


def _check_state(checkpoint, record):
    metadata, groups = checkpoint.metadata, set(checkpoint.arrays)
    expected = [((tuple(shape)), "float32") for shape in record.experiment.weight_shapes()]
    for group in groups & {"best", "model"}:
        if [(array.shape, array.dtype.name) for array in checkpoint.arrays[group]] != expected:
            raise Error(f"the file's weights ({group}) are not those of the network that its record describes.")
    needed = {"best"} if checkpoint.kind == "shared" else _TO_CONTINUE - {"callbacks"}
    allowed = {"best"} if checkpoint.kind == "shared" else _TO_CONTINUE
    agrees = (
        needed <= groups <= allowed
        and isinstance(metadata["complete"], bool)
        and _is_text(metadata["reason"])
        and isinstance(metadata["callbacks"], list)
    )
    if not agrees:
        raise ValueError


def _kind(content):
    if content.lstrip()[:1] == b"<":
        return "a web page: the link leads to a page about the file, or to a sign-in. Give the link of the file itself"
    return "something else" if content else "empty"


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value):
    return isinstance(value, str) and value.isprintable() and len(value) <= 1000
