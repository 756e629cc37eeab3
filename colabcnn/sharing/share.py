"""Hand a run on as one file, and take one that somebody else handed on."""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from colabcnn.errors import Error
from colabcnn.sharing.archive import CHECKPOINTS, pack, unpack
from colabcnn.sharing.checks import check_run
from colabcnn.sharing.download import download, source_and_digest
from colabcnn.store.checkpoint_files import read_verified
from colabcnn.store.files import set_aside, write_atomically
from colabcnn.store.history import best_epoch, history_text, read_history
from colabcnn.store.lock import Lock
from colabcnn.store.run_folder import FETCHED, RunFolder, open_run, run_folder

_UNPACKING = ".unpacking-"


def export(run_dir, path=None, checkpoint=False, *, quiet=False):
    """Pack a run into one file, to be handed on; nothing in the run's folder changes.

    Args:
        run_dir: the run's folder; of a run that still goes, the newest checkpoint's state.
        path: the file, `*.zip`, or a folder for `<name>-seed-<seed>.zip`, made if missing; None takes the run's folder.
        checkpoint: pack also the newest checkpoint, with which training can go on (five times the size).
        quiet: do not say how to share it.

    Returns:
        The archive's SHA-256, hex. The same run gives the same bytes with the same versions of Keras and Matplotlib.

    Raises:
        Error: there is no run in that folder, or no checkpoint of it; nothing can be written at `path`.
    """
    folder, saved = open_run(run_dir)
    path = folder.path if path is None else run_folder(path).path
    if path.suffix.lower() != ".zip":
        path = path / f"{saved.run['experiment']['name']}-seed-{saved.run['seed']}.zip"
    packed = pack(_files_of(folder, saved, checkpoint))
    # What could not be fetched again is not handed on.
    with tempfile.TemporaryDirectory() as elsewhere:
        unpack(packed, Path(elsewhere))
        check_run(RunFolder(Path(elsewhere)))
    content = packed.getbuffer()
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        # The same file stays the same file: its link and its digest may have been sent already.
        if not (path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
    except OSError as error:
        raise Error(f"{path} cannot be written ({error.strerror}); make room, or choose another file.") from None
    if not quiet:
        print(
            f"{path}, {len(content) / 1e6:.1f} MB, SHA-256 {sha256}\nTo share it: upload it, to Google Drive for one, "
            "let everyone with the link see it, and send link and digest. "
            f"They call colabcnn.fetch('LINK#sha256={sha256}')"
        )
    return sha256


def _files_of(folder, saved, checkpoint):
    """Return the files that an archive of a run, a `Saved`, holds: a dict from name to bytes."""
    files = {}
    if saved.checkpoint:
        from colabcnn.inspection.weights import model_bytes

        history = saved.checkpoint.metadata["history"]
        files["model.keras"] = model_bytes(saved.checkpoint.metadata["run"], saved.checkpoint.arrays["best"])
    elif folder.model_keras.exists():
        history = read_history(folder.history_csv)
        files["model.keras"] = folder.model_keras.read_bytes()
    else:
        raise Error(f"{folder.path} has no checkpoint yet; train its first epoch, then export it.")
    if checkpoint:
        if saved.checkpoint is None:
            raise Error(f"{folder.path} has no checkpoint to go on from; export it without.")
        name = saved.checkpoint.name
        files[CHECKPOINTS + name] = read_verified(folder.checkpoints / name)
    if folder.curves_png.exists():
        files["curves.png"] = folder.curves_png.read_bytes()
    else:
        from colabcnn.viewing.curves import plot_curves, png_of

        files["curves.png"] = png_of(plot_curves(folder.path))
    files["history.csv"] = history_text(history).encode()
    files["run.json"] = (json.dumps(saved.run, indent=1) + "\n").encode()
    return files


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
    folder = run_folder(folder).path
    say = (lambda text: None) if quiet else print
    if run_dir := _fetched_before(folder, source, sha256):
        say(f"{run_dir} is there already; nothing was downloaded. To bring it anew, move that folder away.")
        return run_dir
    say(f"Bringing {source} ...")
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
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Error(f"{folder}: {reason}. Nothing was kept; make room, or choose another folder.") from None
    _say_what_came(run_dir, found, sha256, say)
    return run_dir


def _fetched_before(folder, source, sha256):
    """Return the folder of the run with this digest, or without one, of the newest run from there; or None.

    Only if it is whole, or was trained on since.
    """
    found = []
    for path in folder.glob(f"*/seed-*/{FETCHED}"):
        record = _read_record(path)
        wanted = record and (record["sha256"] == sha256 if sha256 else source in record["sources"])
        if wanted and _is_whole_or_trained_on(path.parent, record):
            found.append((path.stat().st_mtime, path.parent))
    return max(found)[1] if found else None


def _read_record(path):
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {"sha256": record["sha256"], "sources": list(record["sources"]), "files": dict(record["files"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_whole_or_trained_on(run_dir, record):
    digests = {name: _sha256_of(run_dir / name) for name in record["files"]}
    differing = {name for name, sha256 in record["files"].items() if digests[name] != sha256}
    return not differing or ("run.json" in differing and digests["run.json"] is not None)


def _sha256_of(path):
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def _unpacked(file, folder, source, sha256):
    """Unpack the archive beside its place, check it, move it there whole, and return that place."""
    unpacked = Path(tempfile.mkdtemp(prefix=_UNPACKING, dir=folder))
    try:
        unpack(file, unpacked)
        run = check_run(RunFolder(unpacked))
        target = folder / run["experiment"]["name"] / f"seed-{run['seed']}-{sha256[:8]}"
        there = _read_record(target / FETCHED)
        if target.exists() and (there is None or there["sha256"] != sha256):
            raise Error(f"{target} holds something else; move it away.")
        if there and _is_whole_or_trained_on(target, there):  # The same archive, from another place.
            there["sources"].append(source)
            write_atomically(target / FETCHED, json.dumps(there) + "\n")
            return target
        files = [path for path in unpacked.rglob("*") if path.is_file()]
        digests = {str(path.relative_to(unpacked)): _sha256_of(path) for path in files}
        record = {"sha256": sha256, "sources": [source], "files": digests}
        write_atomically(unpacked / FETCHED, json.dumps(record) + "\n")
        unpacked.chmod(0o755)
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            set_aside(target.parent, [target])
        os.rename(unpacked, target)
        return target
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


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
