"""A run's folder: its paths, and the run's status."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colabcnn.errors import Error, UnknownFormatError
from colabcnn.store.checkpoint import Checkpoint, newest_checkpoint, read_checkpoint
from colabcnn.store.checkpoint_files import SMALL_FILES, checkpoint_files, epoch_of
from colabcnn.store.files import check_folder, expand, remove_partials, write_atomically
from colabcnn.store.history import History, best_of, empty_history, read_history
from colabcnn.store.run_record import RunRecord

# In test.json: the accuracy of the mean of an image's and its mirror image's probabilities.
FLIP_AVERAGED = "flip_averaged_accuracy"
# In the folder of a fetched run: the SHA-256 of its file, the sources of the download, and when it was fetched.
SHARED_RUN = "shared.json"


class RunFolder:
    """The paths in a run's folder; `small_files` are those beside the checkpoints."""

    def __init__(self, path: str | Path):
        self.path = path = Path(path)
        self.run_json = path / "run.json"
        self.history_csv = path / "history.csv"
        self.checkpoints = path / "checkpoints"
        self.curves_png = path / "curves.png"
        self.model_keras = path / "model.keras"
        self.test_json = path / "test.json"
        self.shared_json = path / SHARED_RUN
        self.small_files = [path / name for name in SMALL_FILES]

    @property
    def is_fetched(self) -> bool:
        """Whether the run was fetched from someone else; False if the folder cannot be read."""
        return os.path.exists(self.shared_json)

    def create(self) -> None:
        """Make the folder if it is missing and check that it can be written to.

        Raises:
            Error: it is a file, or nothing can be written there.
        """
        try:
            if self.path.exists() and not self.path.is_dir():
                raise Error(f"{self.path} is a file; expected a folder, or a name that is not taken.")
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / ".writable", bytes(2**14))  # A full disk may have room for an empty file.
            (self.path / ".writable").unlink(missing_ok=True)  # Another process may try at the same moment.
        except OSError as error:
            raise Error(
                f"{self.path} cannot be written to ({error.strerror}); make room, or choose another folder."
            ) from None

    def write_record(self, record: RunRecord) -> None:
        """Write `run.json`."""
        write_atomically(self.run_json, json.dumps(record.to_json(), indent=1) + "\n")

    def read_record(self) -> RunRecord | None:
        """Return the record in `run.json`, or None if it is missing or cannot be read.

        Raises:
            UnknownFormatError: another version wrote it, in another format.
        """
        try:
            return RunRecord.from_json(json.loads(self.run_json.read_text(encoding="utf-8")), str(self.run_json))
        except UnknownFormatError:
            raise
        except (Error, OSError, RecursionError, ValueError):
            return None

    def read_history(self) -> History:
        """Return the history in `history.csv`, an empty one if it is missing or cannot be read, as after a kill."""
        try:
            return read_history(self.history_csv)
        except Error:
            return empty_history()

    def remove_partials(self) -> None:
        """Remove the partial files of this library that a kill during a write has left."""
        remove_partials(self.path, (*SMALL_FILES, ".writable", "drive.json"))
        remove_partials(self.checkpoints, ["epoch-*"])


@dataclass(frozen=True)
class SavedRun:
    """The run that a folder holds.

    Args:
        record: the one in `run.json`, or the checkpoint's if that file is another run's or cannot be read; None for a
            folder without a run.
        checkpoint: the newest that verifies, or None.
        skipped: newer checkpoint files that cannot be used, each with the reason as a sentence.
    """

    record: RunRecord | None = None
    checkpoint: Checkpoint | None = None
    skipped: dict[Path, str] = field(default_factory=dict)

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return self.checkpoint.epoch if self.checkpoint else 0


def record_of(checkpoint: Checkpoint, where: Path) -> RunRecord:
    """Return the record in a run's checkpoint.

    Args:
        checkpoint: `Checkpoint`.
        where: the folder that it is from, for the message.

    Raises:
        Error: it is not a checkpoint of a run.
    """
    if checkpoint.kind == "fit":
        raise Error(f"{where} holds a fit of CheckpointToDrive and no run of `train`; use another folder.")
    return RunRecord.from_json(checkpoint.metadata.get("run"), checkpoint.name)


def read_saved(folder: RunFolder) -> SavedRun:
    """Read a run's folder; `run.json` may be missing or broken, since the checkpoint holds all but the last start.

    Raises:
        UnknownFormatError: another version wrote it, in another format.
        Error: the checkpoints are not those of a run.
    """
    record = folder.read_record()
    checkpoint, skipped = newest_checkpoint(folder.checkpoints)
    if checkpoint:
        checkpoint_record = record_of(checkpoint, folder.path)
        if record is None or record.identity() != checkpoint_record.identity():
            record = checkpoint_record
    return SavedRun(record, checkpoint, skipped)


def open_run(run_dir: str | Path) -> tuple[RunFolder, RunRecord, SavedRun]:
    """Return `(RunFolder, RunRecord, SavedRun)` of an existing run.

    Raises:
        Error: there is no run in that folder.
    """
    folder = RunFolder(expand(run_dir))
    saved = read_saved(folder)
    if saved.record is None:
        raise Error(
            f"{folder.path} holds no run; expected a run's folder, which `run` or `train` writes when it starts."
        )
    return folder, saved.record, saved


def open_checkpoint(run_dir: str | Path) -> tuple[RunFolder, RunRecord, Checkpoint]:
    """Return `(RunFolder, RunRecord, Checkpoint)` of an existing run, by its newest checkpoint that verifies.

    Raises:
        Error: there is no run in that folder, or it has no checkpoint that verifies.
    """
    folder, _, saved = open_run(run_dir)
    if saved.checkpoint is None:
        detail = " ".join(saved.skipped.values()) or "none is here."
        advice = "Fetch the run again" if folder.is_fetched else "Resume the run, or get one from where it was trained"
        raise Error(f"{folder.path} has no checkpoint that can be used: {detail} {advice}.")
    return folder, record_of(saved.checkpoint, folder.path), saved.checkpoint


def status(run_dir: str | Path) -> dict[str, Any]:
    """Return the status of a run, by its newest checkpoint that verifies.

    Args:
        run_dir: the run's folder.

    Returns:
        A dict of `experiment` (name), `seed`, `epoch` (how many are done), `epochs` (the run's length),
        `best_val_accuracy` (fraction) and `best_epoch` (from 1; both None before the first checkpoint), `complete`,
        and `weights_sha256` (hex, over the bytes of the network's weights in order; None without them).

    Raises:
        Error: there is no run in that folder, or none of its checkpoints verifies.
    """
    folder, record, saved = open_run(run_dir)
    checkpoint, history, complete = saved.checkpoint, empty_history(), False
    if checkpoint is None and checkpoint_files(folder.checkpoints):
        raise Error(f"{folder.path} has no checkpoint that verifies: {' '.join(saved.skipped.values())}")
    if checkpoint:
        record = record_of(checkpoint, folder.path)
        history, complete = checkpoint.metadata["history"], checkpoint.metadata["complete"]
    best, value = best_of(history) if history["epoch"] else (None, None)
    return {
        "experiment": record.experiment.name,
        "seed": record.seed,
        "epoch": len(history["epoch"]),
        "epochs": record.experiment.epochs,
        "best_val_accuracy": value,
        "best_epoch": best,
        "complete": complete,
        "weights_sha256": checkpoint.weights_sha256() if checkpoint and "model" in checkpoint.arrays else None,
    }


def verify(run_dir: str | Path) -> tuple[list[dict[str, Any]], str | None]:
    """Check every checkpoint of a run, here or on Drive, against the digest in its name.

    Args:
        run_dir: the run's folder, or the folder that it is delivered to.

    Returns:
        `(checkpoints, restored)`: a list of dicts, newest first, of `name`, `epoch` and `fault` (why it cannot be used,
        or None); and the name of the checkpoint that a resume would continue from, or None: a newer one in the format
        of another version is refused, and so is a run that was shared without its checkpoint.

    Raises:
        Error: there is no such folder, or it cannot be listed.
    """
    folder = RunFolder(expand(run_dir))
    check_folder(folder.path, "a run's folder")
    try:
        files = checkpoint_files(folder.checkpoints)
    except OSError as error:
        raise Error(f"{folder.checkpoints} cannot be listed ({error.strerror}).") from None
    if not files and not folder.run_json.exists():
        raise Error(
            f"{folder.path} holds no run; expected a run's folder, which `run` or `train` writes when it starts."
        )
    checkpoints, restored, refused = [], None, False
    for path in files:
        fault = None
        try:
            usable = read_checkpoint(path).kind != "shared" and not refused
            restored = restored or (path.name if usable else None)
        except Error as error:
            fault = str(error)
            refused |= isinstance(error, UnknownFormatError)
        checkpoints.append({"name": path.name, "epoch": epoch_of(path), "fault": fault})
    return checkpoints, restored
