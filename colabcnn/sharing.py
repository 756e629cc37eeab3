"""Hand a run on as one file, and take one that somebody else handed on."""

import json
import math
import os
import re
import shutil
import tempfile
from pathlib import Path

from colabcnn.archive import CHECKPOINTS, unpack, write_archive
from colabcnn.checkpoint_files import read_verified
from colabcnn.download import download, source_and_digest
from colabcnn.errors import Error
from colabcnn.experiments import Experiment
from colabcnn.history import best_epoch, history_text, read_history
from colabcnn.lock import Lock
from colabcnn.run_folder import RunFolder, open_run
from colabcnn.storage import DISK_ERRORS, write_atomically

# Beside a run that was fetched: its archive's digest, and where that came from.
RECORD = "fetched.json"
_UNPACKING = ".unpacking-"
_NAME = re.compile(r"\w[\w.+-]{0,99}")
_MAX_SEED = 2**63


def export(run_dir, path=None, checkpoint=False, *, quiet=False):
    """Pack a run into one file, to be handed on.

    Args:
        run_dir: the run's folder; of a run that still goes, the newest checkpoint's state.
        path: the file, `*.zip`, or a folder for `<name>-seed-<seed>.zip`, made if missing; None takes the run's folder.
        checkpoint: pack also the newest checkpoint, with which training can go on (four times the size).
        quiet: do not say how to share it.

    Returns:
        The archive's SHA-256, hex. The same run gives the same bytes.

    Raises:
        Error: there is no run in that folder, or no checkpoint of it; nothing can be written at `path`.
    """
    folder, saved = open_run(run_dir)
    path = Path(folder.path if path is None else path).expanduser()
    if path.suffix != ".zip":
        path = path / f"{saved.run['experiment']['name']}-seed-{saved.run['seed']}.zip"
    files = {}
    if checkpoint and saved.checkpoint is None:
        raise Error(f"{folder.path} has no checkpoint to go on from; export it without.")
    if checkpoint:
        files[CHECKPOINTS + saved.checkpoint.name] = read_verified(folder.checkpoints / saved.checkpoint.name)
    if saved.checkpoint:
        from colabcnn.evaluation import write_model

        write_model(folder, saved.checkpoint)
        history = saved.checkpoint.metadata["history"]
    elif folder.model_keras.exists():
        history = read_history(folder.history_csv)
    else:
        raise Error(f"{folder.path} has no checkpoint yet; train its first epoch, then export it.")
    if not folder.curves_png.exists():
        from colabcnn.plots import save_curves

        save_curves(folder.path, folder.curves_png)
    files |= {
        "run.json": (json.dumps(saved.run, indent=1) + "\n").encode(),
        "history.csv": history_text(history).encode(),
        "curves.png": folder.curves_png.read_bytes(),
        "model.keras": folder.model_keras.read_bytes(),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sha256, size = write_archive(path, files)
    except OSError as error:
        raise Error(f"{path} cannot be written ({error.strerror}); make room, or choose another file.") from None
    if not quiet:
        print(
            f"{path}, {size / 1e6:.1f} MB, SHA-256 {sha256}\nTo share it: upload it, to Google Drive for one, let "
            f"everyone with the link see it, and send link and digest. They call colabcnn.fetch('LINK#sha256={sha256}')"
        )
    return sha256


def fetch(source, sha256=None, folder="fetched", *, quiet=False):
    """Bring a run that somebody handed on, and check it before anything of it is used.

    Args:
        source: where `export`'s file lies: a URL, a link to a file on Google Drive that everyone with the link may see,
            or that file's id. `#sha256=<hex>` behind it is the same as `sha256`.
        sha256: the archive's, hex, as its sender told it. Without it the archive is checked against its own manifest,
            which proves that it is whole, and not who made it.
        folder: of fetched runs; made if missing.
        quiet: show neither progress nor what came.

    Returns:
        The run's folder, `<folder>/<name>/seed-<seed>-<the digest's first eight>`, a `pathlib.Path` for `explore`,
        `predict` and the like, and for `run` if it was exported with its checkpoint. A run that is there already is not
        downloaded again.

    Raises:
        Error: it cannot be downloaded, is another file than the digest's, is not whole, or is no run; the disk is full.
            Nothing of it stays.
    """
    source, sha256 = source_and_digest(source, sha256)
    folder = Path(folder).expanduser()
    say = (lambda text: None) if quiet else print
    if run_dir := _fetched_before(folder, source, sha256):
        say(f"{run_dir} is there already; nothing was downloaded.")
        return run_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with Lock(folder, doing="fetched into"):
            for left in folder.glob(f"{_UNPACKING}*"):  # A kill's.
                shutil.rmtree(left, ignore_errors=True)
            # A file without a name, so that not even a kill leaves it behind.
            with tempfile.TemporaryFile(dir=folder) as file:
                found = download(source, file, quiet=quiet)
                if sha256 not in (None, found):
                    raise Error(f"{source} has the SHA-256 {found}, expected {sha256}; ask its sender for both again.")
                run_dir = _unpacked(file, folder, source, found)
    except Error as error:
        raise Error(f"{error} Nothing of it was kept.") from None
    except OSError as error:
        if error.errno not in DISK_ERRORS and not isinstance(error, (FileExistsError, NotADirectoryError)):
            raise
        raise Error(f"{folder}: {error.strerror}. Nothing was kept; make room, or choose another folder.") from None
    _say_what_came(run_dir, found, sha256, say)
    return run_dir


def _fetched_before(folder, source, sha256):
    """Return the folder of the run with this digest, or without one, of the run from there; None where none is."""
    for path in sorted(folder.glob(f"*/seed-*/{RECORD}")):
        record = _read_record(path)
        if record and (record["sha256"] == sha256 if sha256 else source in record["sources"]):
            return path.parent
    return None


def _read_record(path):
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {"sha256": record["sha256"], "sources": list(record["sources"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _unpacked(file, folder, source, sha256):
    """Unpack the archive beside its place, check it, move it there whole, and return that place."""
    unpacked = Path(tempfile.mkdtemp(prefix=_UNPACKING, dir=folder))
    try:
        unpack(file, unpacked)
        run = _checked_run(RunFolder(unpacked))
        target = folder / run["experiment"]["name"] / f"seed-{run['seed']}-{sha256[:8]}"
        record = _read_record(target / RECORD) or {"sha256": sha256, "sources": []}
        record["sources"].append(source)
        if not (target / RECORD).exists():
            write_atomically(unpacked / RECORD, json.dumps(record) + "\n")
            target.parent.mkdir(exist_ok=True)
            unpacked.chmod(0o755)
            try:
                os.rename(unpacked, target)
            except OSError:
                raise Error(f"{target} is in the way; move it.") from None
        else:  # The same archive, from another place.
            write_atomically(target / RECORD, json.dumps(record) + "\n")
        return target
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _checked_run(folder):
    """Return what a stranger's `run.json` holds, after seeing that it and the history are what this library writes."""
    try:
        run = folder.read_run()
        experiment = Experiment.from_settings(run["experiment"])
        seed, epochs, counts = run["seed"], run["epochs"], (run["train_size"], run["val_size"], run["holdout"])
        devices = [(start["device"], start["first_epoch"], start["time"]) for start in run["starts"]]
    except (Error, AttributeError, KeyError, RecursionError, TypeError, ValueError):
        raise Error("the archive's run.json does not describe a run of this version; update colabcnn.") from None
    if not (
        _NAME.fullmatch(experiment.name)
        and all(type(count) is int and 0 <= count < _MAX_SEED for count in (seed, epochs, *counts))
        and all((type(d), type(first), type(t)) == (str, int, str) for d, first, t in devices)
        and all(isinstance(run[field], str) for field in ("data", "data_sha256", "precision"))
    ):
        raise Error("the archive's run.json does not describe a run; it was not made by `export`.")
    history = read_history(folder.history_csv)
    numbers = [value for column in history.values() for value in column]
    if history["epoch"] != list(range(1, len(history["epoch"]) + 1)) or not all(map(math.isfinite, numbers)):
        raise Error("the archive's history.csv is not that of a run: its epochs are not counted from 1, or not finite.")
    if not numbers:
        raise Error("the archive's history.csv has no epoch.")
    return run


def _say_what_came(run_dir, found, given, say):
    history = read_history(run_dir / "history.csv")
    best, count = best_epoch(history), len(history["epoch"])
    say(
        f"{run_dir}: {count} epoch{'s' if count > 1 else ''}, best validation accuracy "
        f"{history['val_accuracy'][best - 1]:.4f} (epoch {best})."
    )
    if given:
        say("Its SHA-256 is the one that you gave.")
    else:
        say(
            f"It is whole by its own manifest, which does not tell who made it. Its SHA-256 is {found}: compare it "
            "with what its sender says."
        )
