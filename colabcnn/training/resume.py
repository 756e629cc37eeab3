"""Find what a run continues from: the newest checkpoint that verifies, here or on Drive; move unusable files aside."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from colabcnn.data.split import Split, data_name
from colabcnn.drive.delivery import Delivery
from colabcnn.errors import AnotherRunError, Error, UnknownFormatError
from colabcnn.experiments.experiment import Experiment
from colabcnn.store.checkpoint import read_checkpoint
from colabcnn.store.checkpoint_files import FETCHED_SUFFIX, epoch_of
from colabcnn.store.files import move_aside
from colabcnn.store.run_folder import RunFolder, SavedRun, read_saved, record_of
from colabcnn.store.run_record import RunRecord, first_difference
from colabcnn.training.request import RunRequest

Info = Callable[[str], None]


@dataclass(frozen=True)
class Resumption:
    """What a request continues from; `find` makes it.

    Args:
        request: `RunRequest`.
        folder: `RunFolder`.
        saved: `SavedRun`: the run that is continued, without a record if a new one starts.
    """

    request: RunRequest
    folder: RunFolder
    saved: SavedRun

    @property
    def experiment(self) -> Experiment:
        """The run's experiment, with the requested number of epochs if there is one."""
        # The run's own: 30 and 30.0 are the same setting, but have other fingerprints.
        experiment = self.saved.record.experiment if self.saved.record else self.request.experiment
        return replace(experiment, epochs=self.request.epochs or experiment.epochs)

    @property
    def precision(self) -> str:
        """The run's precision; "auto" if a new run leaves it open."""
        return self.saved.record.precision if self.saved.record else self.request.precision

    @property
    def is_finished(self) -> bool:
        """Whether no epoch is left to train: all are done, or EarlyStopping has ended the run."""
        checkpoint, epochs = self.saved.checkpoint, self.experiment.epochs
        if checkpoint is None:
            return False
        saved_epochs = record_of(checkpoint, self.folder.path).experiment.epochs
        ended_early = checkpoint.metadata["complete"] and checkpoint.epoch < saved_epochs
        return checkpoint.epoch >= epochs or (ended_early and epochs <= saved_epochs)

    def with_data(self, split: Split, precision: str) -> tuple["Resumption", RunRecord]:
        """Return the resumption and the run's record, given its data and its precision.

        Raises:
            Error: the run was trained on other data.
        """
        record = RunRecord(
            experiment=self.experiment,
            seed=self.request.seed,
            data=data_name(self.request.data),
            data_sha256=split.digest(),
            train_size=len(split.train_labels),
            val_size=len(split.val_labels),
            holdout=self.request.holdout,
            precision=precision,
        )
        saved = _continued(self.saved, record.identity(), self.folder.path)
        starts = saved.record.starts if saved.record else ()
        return replace(self, saved=saved), replace(record, starts=starts)


def find(request: RunRequest, folder: RunFolder, delivery: Delivery | None, info: Info) -> Resumption:
    """Find what a request continues, here and on Drive.

    Args:
        request: `RunRequest`.
        folder: the run's folder.
        delivery: `Delivery`, or None.
        info: callable that shows a message.

    Raises:
        Error: a folder holds another run, or one that cannot be continued; Drive cannot be read and there is no
            checkpoint here.
    """
    requested, saved = request.identity(), read_saved(folder)
    _refuse_without_checkpoint(saved.checkpoint, folder.path)
    saved = _continued(saved, requested, folder.path)
    if delivery:
        saved = _with_drive(folder, saved, requested, delivery, info)
    if saved.checkpoint is None and folder.is_fetched:
        raise Error(
            f"{folder.path} was fetched, and its checkpoint cannot be used: "
            f"{' '.join(saved.skipped.values()) or 'it is missing.'} Fetch the run again, or use another folder."
        )
    resumption = Resumption(request, folder, saved)
    epochs, usual = resumption.experiment.epochs, request.experiment.epochs
    if not resumption.experiment.is_extendable and epochs != usual:
        info(f"The learning rate falls over {epochs} epochs, not {usual}.")
    elif request.epochs is None and epochs != usual:
        info(f"The run ends with epoch {epochs}; to train the experiment's {usual}, give that number as epochs.")
    return resumption


def fetch_from_drive(
    delivery: Delivery, local_epoch: int, info: Info, fingerprint: str | None = None
) -> dict[str, Any]:
    """Fetch the newest checkpoint from Drive if it is newer than the one here, and report the skipped ones.

    Args:
        delivery: `Delivery`.
        local_epoch: epoch of the newest checkpoint here that verifies, 0 for none.
        info: callable that shows a message.
        fingerprint: the run's, or None if it is not known yet.

    Returns:
        A dict of `fetched` (the checkpoint's name, or None if there is no newer one), `record` and `fingerprint`, as
        `DriveFolder.fetch` returns them; `Delivery.keep_fetched` then adds the checkpoint to the run's.

    Raises:
        AnotherRunError: Drive holds another run.
        Error: Drive cannot be read and there is no checkpoint here. The run may be on Drive, so no new one is started.
    """
    try:
        response = delivery.fetch(local_epoch, fingerprint)
    except AnotherRunError:
        raise
    except Error as error:
        if not local_epoch:
            raise Error(
                f"{error} Nothing was started, since the run may be there: try again when Drive works."
            ) from None
        info(f"{error} Training continues from the checkpoint here; it is delivered when Drive is back.")
        return {"fetched": None, "record": None, "fingerprint": None}
    for reason in response["skipped"].values():
        info(f"Skipped: {reason}")
    if response["fetched"]:
        info(f"Fetched from {delivery.drive}: {response['fetched']}, epoch {epoch_of(response['fetched'])}, verified.")
    elif response["unreadable"] and not local_epoch:
        raise Error(
            f"no checkpoint in {delivery.drive} can be read, and there is none here. Nothing was started, since the "
            "run may be there: try again later, or use another folder."
        )
    elif response["skipped"] and not local_epoch and (target := delivery.move_aside(list(response["skipped"]))):
        info(f"No checkpoint in {delivery.drive} verifies; they are kept in {target}.")
    return response


def move_run_aside(folder: RunFolder, delivery: Delivery | None, info: Info) -> None:
    """Move the run in the folders aside, on Drive first: a run that is left there would be continued."""
    targets = [delivery.move_aside()] if delivery else []
    present = [path for path in (*folder.small_files, folder.shared_json, folder.checkpoints) if path.exists()]
    targets += [move_aside(folder.path, present)] if present else []
    for target in filter(None, targets):
        info(f"The former run is kept in {target}.")


def move_unusable_aside(folder: RunFolder, saved: SavedRun, info: Info) -> None:
    """Move unusable files aside, and those that training would overwrite, and report it; nothing is deleted."""
    folder.remove_partials()
    last = len(folder.read_history()["epoch"])
    if saved.checkpoint and last > saved.epoch:
        info(
            f"history.csv ends with epoch {last}, the newest checkpoint that verifies is of epoch {saved.epoch}: the "
            "epochs between them are trained again."
        )
    for reason in saved.skipped.values():
        info(f"Skipped: {reason}")
    unusable = list(saved.skipped)
    if saved.checkpoint is None:
        kept = (folder.run_json,) if last else (folder.run_json, folder.history_csv)
        unusable += [path for path in folder.small_files if path not in kept]
    if any(path.exists() for path in unusable):
        target = move_aside(folder.path, unusable)
        epoch = f"continues with epoch {saved.epoch + 1}" if saved.checkpoint else "starts with epoch 1"
        info(f"Unusable files are kept in {target}; training {epoch}.")


def _continued(saved: SavedRun, requested: dict[str, Any], where: Path) -> SavedRun:
    """Return the saved run if it is the requested one; only this function decides that.

    Another run without a checkpoint, such as one that was stopped in its first epoch, counts as none.

    Raises:
        Error: it is another run.
    """
    if saved.record is None or not (difference := first_difference(saved.record.identity(), requested)):
        return saved
    if saved.checkpoint is not None or saved.skipped:
        _refuse(where, *difference)
    return SavedRun()


def _refuse(where, name, saved_value, requested_value):
    if name == "data_sha256":
        raise Error(
            f"{where} holds a run that was trained on other images: their SHA-256 was {saved_value[:16]}..., now it is "
            f"{requested_value[:16]}...; give the images that it was started with, or use another folder.",
            "another_run",
        )
    reason = ", over which its learning rate falls" if name == "experiment.epochs" else ""
    raise Error(
        f"{where} holds another run: its {name} is {saved_value!r}{reason}, now given {requested_value!r}; give the "
        "value that it was started with, or use another folder.",
        "another_run",
    )


def _refuse_without_checkpoint(checkpoint, where):
    if checkpoint and checkpoint.kind == "shared":
        raise Error(
            f"{where} was shared without its checkpoint and cannot be continued. Ask its sender for a file with the "
            "checkpoint, or use another folder.",
            "shared_without_checkpoint",
        )


def _with_drive(folder, saved, requested, delivery, info):
    """Fetch Drive's newest checkpoint and return the saved run; another run's checkpoint is refused and not kept."""
    response = fetch_from_drive(delivery, saved.epoch, info)
    name = response["fetched"]
    try:
        checkpoint = read_checkpoint(folder.checkpoints / f"{name}{FETCHED_SUFFIX}") if name else None
        _refuse_without_checkpoint(checkpoint, delivery.drive)
        records = [_record_on_drive(response["record"], delivery.drive)]
        records += [record_of(checkpoint, delivery.drive)] if checkpoint else []
        for record in filter(None, records):
            for identity in (requested, saved.record.identity() if saved.record else {}):
                if difference := first_difference(record.identity(), identity):
                    _refuse(delivery.drive, *difference)
        if saved.record and response["fingerprint"] not in (None, saved.record.fingerprint()):
            raise Error(f"{delivery.drive} holds another run; use another folder.", "another_run")
    except BaseException:
        delivery.discard_fetched()
        raise
    delivery.keep_fetched(name)
    if checkpoint is None and saved.record is None:
        return saved
    # Another machine, whose clock may be wrong, may have extended the run since. A checkpoint's record lacks the end of
    # its last start.
    known = filter(None, [saved.record, *records])
    record = max(known, key=lambda record: (len(record.starts), record.starts[-1].time if record.starts else ""))
    if checkpoint is None:
        return replace(saved, record=record)
    skipped = {path: reason for path, reason in saved.skipped.items() if epoch_of(path) > checkpoint.epoch}
    return SavedRun(record, replace(checkpoint, name=name), skipped)


def _record_on_drive(value, drive):
    """Return the record in Drive's `run.json`, or None if it cannot be read: the checkpoint has one, too."""
    try:
        return None if value is None else RunRecord.from_json(value, f"{drive}/run.json")
    except UnknownFormatError:
        raise
    except Error:
        return None
