"""A run's folder: what lies where, and how the run stands."""

import json
from dataclasses import dataclass
from pathlib import Path

from colabcnn.errors import Error
from colabcnn.store.checkpoint import Checkpoint, newest_checkpoint, read_checkpoint
from colabcnn.store.checkpoint_files import SMALL_FILES, checkpoint_files, epoch_of
from colabcnn.store.files import remove_partials, write_atomically
from colabcnn.store.history import best_epoch, empty_history, read_history
from colabcnn.store.run_record import FINGERPRINT

# In test.json: of the mean of an image's probabilities and its mirror image's.
FLIP_AVERAGED = "flip_averaged_accuracy"
# Beside a run that was handed on: its archive's digest, its files' digests, and where it came from.
FETCHED = "fetched.json"


@dataclass(frozen=True)
class RunFolder:
    """The paths in a run's folder."""

    path: Path

    @property
    def run_json(self):
        return self.path / "run.json"

    @property
    def history_csv(self):
        return self.path / "history.csv"

    @property
    def checkpoints(self):
        return self.path / "checkpoints"

    @property
    def curves_png(self):
        return self.path / "curves.png"

    @property
    def model_keras(self):
        return self.path / "model.keras"

    @property
    def test_json(self):
        return self.path / "test.json"

    @property
    def small_files(self):
        """What lies beside the checkpoints."""
        return [self.path / name for name in SMALL_FILES]

    def create(self):
        """Make the folder if it is missing and see that it can be written to.

        Raises:
            Error: it is a file, or nothing can be written there.
        """
        try:
            if self.path.exists() and not self.path.is_dir():
                raise Error(f"{self.path} is a file; expected a folder for the run, or a name that is not taken.")
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / ".writable", "")
            (self.path / ".writable").unlink()
        except OSError as error:
            raise Error(
                f"{self.path} cannot be written to ({error.strerror}); make room, or choose another folder."
            ) from None

    def write_run(self, run):
        """Write `run.json`."""
        write_atomically(self.run_json, json.dumps(run, indent=1) + "\n")

    def read_run(self):
        """Return what `run.json` holds, or None where there is none that can be read."""
        try:
            run = json.loads(self.run_json.read_text(encoding="utf-8"))
        except (OSError, RecursionError, ValueError):
            return None
        needed = (*FINGERPRINT, "epochs", "starts")
        return run if isinstance(run, dict) and all(field in run for field in needed) else None

    def remove_partials(self):
        """Remove what a kill in the middle of a write left behind; nothing that is not this library's."""
        remove_partials(self.path, SMALL_FILES)
        remove_partials(self.checkpoints, ["epoch-*"])


@dataclass(frozen=True)
class Saved:
    """What a folder holds of a run.

    Args:
        run: as `run.json`, from the checkpoint where there is one; None for a folder without a run.
        checkpoint: the newest that verifies, or None.
        passed_over: newer checkpoint files that were not taken, each with the reason as a sentence.
    """

    run: dict | None
    checkpoint: Checkpoint | None
    passed_over: dict[Path, str]

    @property
    def epoch(self):
        """How many epochs are done."""
        return self.checkpoint.epoch if self.checkpoint else 0


def read_saved(folder):
    """Read a `RunFolder`; `run.json` may be gone or broken, since the checkpoint holds all of it but the last start.

    Raises:
        Error: the checkpoints are not those of a run.
    """
    checkpoint, passed_over = newest_checkpoint(folder.checkpoints)
    if checkpoint and "run" not in checkpoint.metadata:
        raise Error(f"{folder.path} holds a fit of CheckpointToDrive and no run of `train`; give another folder.")
    run = folder.read_run()
    if checkpoint and (run is None or any(run[field] != checkpoint.metadata["run"][field] for field in FINGERPRINT)):
        run = checkpoint.metadata["run"]
    return Saved(run, checkpoint, passed_over)


def run_folder(run_dir):
    """Return the `RunFolder` at a path, `~` for the home folder.

    Raises:
        Error: a home folder that is nobody's.
    """
    try:
        return RunFolder(Path(run_dir).expanduser())
    except RuntimeError as error:
        raise Error(f"{run_dir}: {error}; give the folder's whole path.") from None


def open_run(run_dir):
    """Return `(RunFolder, Saved)` of an existing run.

    Raises:
        Error: there is no run in that folder.
    """
    folder = run_folder(run_dir)
    saved = read_saved(folder)
    if saved.run is None:
        raise Error(f"{folder.path} holds no run; expected a folder that `train --run-dir` wrote.")
    return folder, saved


def status(run_dir):
    """Tell how a run stands, by its newest checkpoint that verifies; of one handed on without, by its history.

    Args:
        run_dir: the run's folder.

    Returns:
        A dict of `experiment` (name), `seed`, `epoch` (how many are done), `epochs` (how many are wanted),
        `best_val_accuracy` (fraction) and `best_epoch` (from 1; both None before the first checkpoint), `complete`,
        and `weights_sha256` (hex, over the bytes of the network's weights in order; None without a checkpoint).

    Raises:
        Error: there is no run in that folder, or it has checkpoints of which none verifies.
    """
    folder, saved = open_run(run_dir)
    checkpoint = saved.checkpoint
    if checkpoint is None and checkpoint_files(folder.checkpoints):
        raise Error(f"{folder.path} has no checkpoint that verifies: {' '.join(saved.passed_over.values())}")
    run, history = saved.run, empty_history()
    complete = False
    if checkpoint:
        run, history, complete = (checkpoint.metadata[key] for key in ("run", "history", "complete"))
    elif folder.model_keras.exists():
        history = read_history(folder.history_csv)
        complete = len(history["epoch"]) >= run["epochs"]
    best = best_epoch(history)
    return {
        "experiment": run["experiment"]["name"],
        "seed": run["seed"],
        "epoch": len(history["epoch"]),
        "epochs": run["epochs"],
        "best_val_accuracy": history["val_accuracy"][best - 1] if best else None,
        "best_epoch": best,
        "complete": complete,
        "weights_sha256": checkpoint.weights_sha256() if checkpoint else None,
    }


def verify(run_dir):
    """Check every checkpoint of a run, here or on Drive, against the digest in its name.

    Args:
        run_dir: the run's folder, or the folder that it is delivered to.

    Returns:
        `(checkpoints, restored)`: a list of dicts, newest first, of `name`, `epoch` and `fault` (why it cannot be used,
        or None), and the name of the one that a resume would go on from, or None.

    Raises:
        Error: there is no such folder, or it cannot be listed.
    """
    folder = run_folder(run_dir)
    if not folder.path.is_dir():
        raise Error(f"{folder.path} is not there; expected a run's folder.")
    try:
        files = checkpoint_files(folder.checkpoints)
    except OSError as error:
        raise Error(f"{folder.checkpoints} cannot be listed ({error.strerror}).") from None
    checkpoints = []
    for path in files:
        try:
            read_checkpoint(path)
            fault = None
        except Error as error:
            fault = str(error)
        checkpoints.append({"name": path.name, "epoch": epoch_of(path), "fault": fault})
    return checkpoints, next((told["name"] for told in checkpoints if told["fault"] is None), None)
