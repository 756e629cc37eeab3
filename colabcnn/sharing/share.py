"""Share a run as one file, and fetch a shared run."""

import datetime
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from colabcnn import output
from colabcnn.colab import DRIVE_MOUNT
from colabcnn.errors import MALFORMED, Error
from colabcnn.sharing.checks import read_shared, shared_bytes
from colabcnn.sharing.download import download, source_and_digest
from colabcnn.store.checkpoint import Checkpoint, newest_checkpoint
from colabcnn.store.checkpoint_files import checkpoint_name
from colabcnn.store.files import expand, move_aside, write_atomically
from colabcnn.store.history import best_of, write_history
from colabcnn.store.lock import Lock
from colabcnn.store.run_folder import SHARED_RUN, RunFolder, open_checkpoint
from colabcnn.viewing.curves import save_curves_if_possible

SUFFIX = ".safetensors"
_UNFINISHED = ".fetching-"


def export(
    run_dir: str | Path, path: str | Path | None = None, checkpoint: bool = False, *, quiet: bool = False
) -> str:
    """Write a run into one file, to be shared; the run itself does not change.

    Args:
        run_dir: the run's folder; if the run still trains, its newest checkpoint is used.
        path: the file, `*.safetensors`, or a folder for `<name>-seed-<seed>.safetensors`, made if missing; None takes
            the run's folder.
        checkpoint: include everything that is needed to continue training (four times the size).
        quiet: do not print how to share the file.

    Returns:
        The file's SHA-256, hex. The same run gives the same bytes.

    Raises:
        Error: there is no run in that folder, or no checkpoint of it; `path` cannot be written.
    """
    folder, record, newest = open_checkpoint(run_dir)
    content = _exported_bytes(folder, newest, checkpoint)
    path = folder.path if path is None else expand(path)
    if path.suffix.lower() != SUFFIX:
        path = path / f"{record.experiment.name}-seed-{record.seed}{SUFFIX}"
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        # An identical file is not written again: somebody may already use its link.
        if not (path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
    except OSError as error:
        raise Error(f"{path} cannot be written ({error.strerror}); make room, or choose another file.") from None
    if not quiet:
        upload = "in Google Drive, " if DRIVE_MOUNT in path.parents else "upload it, for example to Google Drive, "
        output.write(
            f"{path}, {len(content) / 1e6:.1f} MB, SHA-256 {sha256}\n"
            f"To share it: {upload}let everyone with the link see it, and send LINK#sha256={sha256}\n"
            "The receiver puts this into LINKS of the notebook 10_compare_runs, or calls colabcnn.fetch with it."
        )
    return sha256


def _exported_bytes(folder: RunFolder, checkpoint: Checkpoint, everything: bool) -> bytes:
    """Return the file's bytes: the best weights alone, or everything that is needed to continue training."""
    if everything and checkpoint.kind == "shared":
        raise Error(
            f"{folder.path} was shared without its checkpoint, and cannot be exported with one; leave out --checkpoint "
            "(checkpoint=True)."
        )
    if not everything:
        arrays, metadata = {"best": checkpoint.arrays["best"]}, {**checkpoint.metadata, "callbacks": []}
        checkpoint = replace(checkpoint, kind="shared", arrays=arrays, metadata=metadata)
    content = shared_bytes(checkpoint)
    try:
        read_shared(content)
    except Error as error:
        raise Error(f"{folder.path} cannot be shared, as `fetch` would refuse it: {error}") from None
    return content


def fetch(
    source: str | os.PathLike[str], sha256: str | None = None, folder: str | Path = "fetched", *, quiet: bool = False
) -> Path:
    """Download a shared run, and check it before it is used.

    Args:
        source: a URL of `export`'s file, a link to a file on Google Drive that everyone with the link may see, that
            file's id, or the path of a file here. `#sha256=<hex>` at its end is the same as `sha256`.
        sha256: the file's, hex, from its sender. Without it the file is checked only against the digest inside. That
            proves that the file is complete and not altered by accident, but not who made it.
        folder: of fetched runs; made if missing.
        quiet: print nothing.

    Returns:
        The run's folder, `<folder>/<name>/seed-<seed>-<the digest's first eight>`, a `pathlib.Path` for `explore`,
        `predict` and the like, and for `run` if it was exported with its checkpoint. A run that exists already is not
        downloaded again.

    Raises:
        Error: the file cannot be downloaded, does not have the digest, is not complete, or is not a run; the disk is
            full. The file is not kept.
    """
    source, sha256 = source_and_digest(source, sha256)
    folder = expand(folder)
    info = (lambda text: None) if quiet else output.write
    if run_dir := _fetched_before(folder, source, sha256):
        info(f"{run_dir} exists already; nothing was downloaded. To download it again, move that folder away.")
        return run_dir
    info(f"Downloading {source} ...")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with Lock(folder, activity="fetched into"):
            for unfinished in folder.glob(f"{_UNFINISHED}*"):  # A kill has left it.
                shutil.rmtree(unfinished, ignore_errors=True)
            # A file without a name is not left after a kill.
            with tempfile.TemporaryFile(dir=folder) as file:
                download(source, file, quiet=quiet)
                file.seek(0)
                content = file.read()
            found = hashlib.sha256(content).hexdigest()
            if sha256 not in (None, found):
                raise Error(f"{source} has the SHA-256 {found}, expected {sha256}; ask its sender for both again.")
            run_dir = _install(content, folder, source, found, info)
    except Error as error:
        raise Error(f"{error} No file was kept.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Error(f"{folder}: {reason}. No file was kept; make room, or choose another folder.") from None
    _report_fetched(run_dir, found, sha256, info)
    return run_dir


def fetch_links(links: str, folder: str | Path = "fetched") -> list[Path]:
    """Download several shared runs; one that fails is reported, and the others are downloaded.

    Args:
        links: sources as for `fetch`, separated by spaces.
        folder: as for `fetch`.

    Returns:
        The folders of the runs that are here now.
    """
    fetched = []
    for link in links.split():
        try:
            fetched.append(fetch(link, folder=folder))
        except Error as error:
            output.write(f"{link}: {error}")
    return fetched


def _fetched_before(folder: Path, source: str, sha256: str | None) -> Path | None:
    """Return the folder of the fetched run with this digest, or without a digest the newest from this source, or None.

    The run must have a checkpoint that verifies.
    """
    found = []
    for path in folder.glob(f"*/seed-*/{SHARED_RUN}"):
        note = _read_note(path)
        if note is None or not (note["sha256"] == sha256 if sha256 else source in note["sources"]):
            continue
        if _is_usable(path.parent):
            found.append((note["fetched"], path.parent))
    return max(found)[1] if found else None


def _read_note(path: Path) -> dict[str, Any] | None:
    """Return a fetched run's `sha256`, its `sources` and when it was `fetched`, or None if they cannot be read."""
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        return {"sha256": str(note["sha256"]), "sources": list(note["sources"]), "fetched": str(note["fetched"])}
    except (OSError, *MALFORMED):
        return None


def _now():
    return datetime.datetime.now(datetime.UTC).isoformat()


def _is_usable(run_dir: Path) -> bool:
    try:
        checkpoint, _ = newest_checkpoint(run_dir / "checkpoints")
    except (Error, OSError):
        return False
    return checkpoint is not None and RunFolder(run_dir).history_csv.exists()


def _install(content: bytes, folder: Path, source: str, sha256: str, info: Callable[[str], None]) -> Path:
    """Check a file's bytes, write the run's folder under a temporary name, rename it when complete, and return it."""
    checkpoint, record = read_shared(content)
    target = folder / record.experiment.name / f"seed-{record.seed}-{sha256[:8]}"
    note = _read_note(RunFolder(target).shared_json)
    if target.exists() and (note is None or note["sha256"] != sha256):
        raise Error(f"{target} holds other files; move it away.")
    if note and _is_usable(target):  # The same file, from another source.
        note["sources"].append(source)
        note["fetched"] = _now()
        write_atomically(RunFolder(target).shared_json, json.dumps(note) + "\n")
        return target
    with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=folder, ignore_cleanup_errors=True) as unfinished:
        run = RunFolder(Path(unfinished) / record.experiment.name / target.name)  # The picture is named after it.
        run.checkpoints.mkdir(parents=True)
        write_atomically(run.checkpoints / checkpoint_name(checkpoint.epoch, content), content)
        run.write_record(record)
        write_history(run.history_csv, checkpoint.metadata["history"])
        save_curves_if_possible(run.path, run.curves_png, info)
        note = {"sha256": sha256, "sources": [source], "fetched": _now()}
        write_atomically(run.shared_json, json.dumps(note) + "\n")
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            info(f"{target} cannot be used, and is kept in {move_aside(target.parent, [target])}.")
        os.rename(run.path, target)
        return target


def _report_fetched(run_dir: Path, found: str, given: str | None, info: Callable[[str], None]) -> None:
    _, _, checkpoint = open_checkpoint(run_dir)
    history = checkpoint.metadata["history"]
    (best, value), count = best_of(history), len(history["epoch"])
    info(f"{run_dir}: {count} epoch{'s' if count > 1 else ''}, best validation accuracy {value:.4f} (epoch {best}).")
    if given:
        info("Its SHA-256 is the one that you gave.")
    else:
        info(
            f"It is complete by the digest inside, which does not prove who made it. Its SHA-256 is {found}: compare "
            "it with the one that its sender has."
        )
