"""Check a shared file before it is used."""

import hashlib
import re
from dataclasses import replace

import numpy as np

from colabcnn.errors import MALFORMED, Error
from colabcnn.experiments.catalog import find_experiment
from colabcnn.experiments.checks import check_kind, check_text
from colabcnn.store.checkpoint import Checkpoint, checkpoint_bytes, parse_checkpoint
from colabcnn.store.history import COLUMNS
from colabcnn.store.run_record import RunRecord

# A file of the final network with its checkpoint has 48 MB.
MAX_BYTES = 1 << 30
# The file's text after 700 epochs has 0.1 MB; parsed JSON takes twenty times its size in memory.
_MAX_HEADER_BYTES = 2 << 20
_MAX_FLOAT32 = 3.4028235e38
# Tables and terminals show devices and times, so these must not contain Markdown, links or control characters.
_PLAIN = re.compile(r"(?!.*(://|www\.|\w@\w))[\w .,;:()/@+-]{1,200}", re.ASCII | re.IGNORECASE)
# The digest in the header, which holds JSON as a text inside JSON.
_DIGEST = re.compile(rb'\\"sha256\\": \\"([0-9a-f]{64})\\"')
_BLANK = "0" * 64
_ZIP = b"PK\x03\x04"  # Read as a header's size, it would be 67 MB.


def shared_bytes(checkpoint: Checkpoint) -> bytes:
    """Return the bytes of a checkpoint's file with their SHA-256 inside, computed with zeros in its place.

    safetensors has no checksum, and a shared file may be renamed.
    """
    others = {name: value for name, value in checkpoint.metadata.items() if name != "sha256"}
    content = checkpoint_bytes(replace(checkpoint, metadata={"sha256": _BLANK, **others}))
    digest = hashlib.sha256(content).hexdigest()
    return content.replace(_BLANK.encode(), digest.encode(), 1)


def read_shared(content: bytes) -> tuple[Checkpoint, RunRecord]:
    """Read and check the bytes of a file that `export` has written.

    Returns:
        `(Checkpoint, RunRecord)`.

    Raises:
        Error: the file is not such a file, and why.
    """
    _check_digest(content)
    checkpoint = parse_checkpoint(content, "the file")
    if checkpoint.kind not in ("run", "shared"):
        raise Error(f"the file is a checkpoint of kind {checkpoint.kind!r}; expected one that `export` wrote.")
    metadata = checkpoint.metadata
    try:
        record = RunRecord.from_json(metadata["run"], "the file")
        _check_record(record)
        _check_history(metadata["history"], checkpoint.epoch, record.experiment.epochs)
        _check_arrays(checkpoint, record)
        check_kind("the file's 'complete'", metadata["complete"], bool)
        check_kind("the file's 'callbacks'", metadata["callbacks"], list)
        check_text("the file's 'reason'", metadata["reason"], 1000)
    except MALFORMED:
        raise Error("the file does not describe a run as `export` does; ask its sender to export it again.") from None
    return checkpoint, record


def _check_digest(content):
    header_size = int.from_bytes(content[:8], "little")
    found = _DIGEST.search(content, 8, 8 + min(header_size, _MAX_HEADER_BYTES))
    if found is None or content.startswith(_ZIP):
        raise Error(f"the file is {_kind(content)}; expected one that `python -m colabcnn export` wrote.")
    (start, end), view = found.span(1), memoryview(content)
    sha256 = hashlib.sha256(view[:start])
    sha256.update(_BLANK.encode())
    sha256.update(view[end:])
    if sha256.hexdigest().encode() != found[1]:
        raise Error(
            f"the file is truncated or altered: its {len(content):,} bytes do not have the SHA-256 that is inside. "
            "Download it again, or ask its sender for it."
        )
    if header_size > _MAX_HEADER_BYTES:
        raise Error(f"the file's text has {header_size:,} bytes; expected {_MAX_HEADER_BYTES:,} at most.")


def _kind(content):
    """Describe a file that `export` has not written."""
    if not content:
        return "empty"
    if content.lstrip()[:1] == b"<":
        return "a web page: the link leads to a page about the file, or to a sign-in. Give the link of the file itself"
    if content.startswith(_ZIP):
        return "a zip archive, as version 0.1.0 of colabcnn exported a run. Ask its sender to export it again"
    return "something else: it has no SHA-256 of `export` inside"


def _check_record(record):
    try:
        find_experiment(record.experiment)
    except Error:
        raise Error(
            f"the file's run is named {record.experiment.name}, with other settings than this version's experiment of "
            "that name; ask its sender which version of colabcnn wrote it."
        ) from None
    for start in record.starts:
        if not _PLAIN.fullmatch(start.device) or not _PLAIN.fullmatch(start.time):
            raise Error(
                f"the file's run was on {start.device[:80]!r} at {start.time[:80]!r}; expected letters, digits and "
                "' .,;:()/@+-_'."
            )


def _check_history(history, epoch, most):
    if set(history) != set(COLUMNS) or not all(isinstance(column, list) for column in history.values()):
        raise ValueError
    epochs, accuracies = history["epoch"], history["accuracy"] + history["val_accuracy"]
    counted = all(type(number) is int for number in epochs) and epochs == list(range(1, len(epochs) + 1))
    if not counted or {len(column) for column in history.values()} != {epoch} or epoch < 1:
        raise Error(f"the file's history is not that of {epoch} epochs; expected a row for each, counted from 1.")
    if epoch > most:
        raise Error(f"the file's history has {epoch} epochs; expected {most} at most, as in its record.")
    numbers = [value for column in history.values() for value in column]
    if not all(map(_is_number, numbers)) or not all(0 <= value <= 1 for value in accuracies):
        raise Error("the file's history is not that of a run; expected finite numbers, and accuracies from 0 to 1.")


def _check_arrays(checkpoint, record):
    arrays = checkpoint.arrays
    needed = {"best"} if checkpoint.kind == "shared" else {"best", "model", "optimizer"}
    allowed = needed if checkpoint.kind == "shared" else needed | {"callbacks"}
    if not needed <= set(arrays) <= allowed:
        raise Error(
            f"the file holds the arrays of {', '.join(sorted(arrays))[:100] or 'nothing'}; expected those of "
            f"{', '.join(sorted(needed))}."
        )
    # Weights that are never trained again may have half the size.
    precisions = ("float32", "float16") if checkpoint.kind == "shared" else ("float32",)
    expected = [[(shape, precision) for shape in record.experiment.weight_shapes()] for precision in precisions]
    for group in needed - {"optimizer"}:
        if [(array.shape, array.dtype.name) for array in arrays[group]] not in expected:
            raise Error(
                f"the file's weights ({group}) do not have the shapes and types of the network in its record, "
                f"{record.experiment.name}; ask its sender to export it again."
            )
        if not all(np.isfinite(array).all() for array in arrays[group]):
            raise Error(f"the file's weights ({group}) hold NaN or infinity; ask its sender for another run.")
    if not all(array.dtype.kind in "iuf" for array in arrays.get("optimizer", [])):
        raise Error("the file's optimizer has values that are not numbers; ask its sender to export it again.")


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _MAX_FLOAT32
