"""What a run continues from: the newest checkpoint that verifies, here or on Drive; and what is in its way."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from colabcnn.data.split import Split, data_name
from colabcnn.drive.delivery import Delivery
from colabcnn.errors import AnotherRunError, Error, UnknownFormatError
from colabcnn.experiments.experiment import Constant, Experiment
from colabcnn.store.checkpoint import read_checkpoint
from colabcnn.store.checkpoint_files import FETCHED_SUFFIX, epoch_of
from colabcnn.store.files import move_aside
from colabcnn.store.history import read_history
from colabcnn.store.run_folder import RunFolder, SavedRun, read_saved, record_of
from colabcnn.store.run_record import RunRecord, first_difference
from colabcnn.training.request import RunRequest

Say = Callable[[str], None]


@dataclass(frozen=True)
class Resumption:
    """What was found, here and on Drive, for a request; made by `find`.

    Args:
        request: `RunRequest`.
        folder: `RunFolder`.
        saved: `SavedRun`: the run that is continued, without a record where a new one starts.
    """

    request: RunRequest
    folder: RunFolder
    saved: SavedRun

    @property
    def experiment(self) -> Experiment:
        """The experiment with this run's number of epochs."""
        own = self.saved.record.experiment if self.saved.record else self.request.experiment
        return replace(self.request.experiment, epochs=self.request.epochs or own.epochs)

    @property
    def precision(self) -> str:
        """The run's precision; "auto" where a new run leaves it open."""
        return self.saved.record.precision if self.saved.record else self.request.precision

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to train: all epochs are done, or EarlyStopping has ended the run."""
        checkpoint, epochs = self.saved.checkpoint, self.experiment.epochs
        if checkpoint is None:
            return False
        wanted_before = record_of(checkpoint, self.folder.path).experiment.epochs
        ended_early = checkpoint.metadata["complete"] and checkpoint.epoch < wanted_before
        return checkpoint.epoch >= epochs or (ended_early and epochs <= wanted_before)

    def with_data(self, split: Split, precision: str) -> tuple["Resumption", RunRecord]:
        """Return the resumption and the run's record, now that its data and its precision are known.

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


def find(request: RunRequest, folder: RunFolder, delivery: Delivery | None, info: Say) -> Resumption:
    """Find what a request continues, here and on Drive.

    Args:
        request: `RunRequest`.
        folder: the run's folder.
        delivery: `Delivery`, or None.
        info: callable that shows a message.

    Raises:
        Error: a folder holds another run, or one that cannot be continued; Drive cannot be read and nothing is here.
    """
    wanted, saved = request.identity(), read_saved(folder)
    if saved.checkpoint and saved.checkpoint.kind == "shared":
        raise Error(
            f"{folder.path} was shared without its checkpoint: there is nothing to continue from. Ask its sender for "
            "one with the checkpoint, or use another folder.",
            "shared_without_checkpoint",
        )
    saved = _continued(saved, wanted, folder.path)
    if delivery:
        saved = _with_drive(folder, saved, wanted, delivery, info)
    if saved.checkpoint is None and folder.is_shared:
        raise Error(
            f"{folder.path} was shared by somebody, and its checkpoint cannot be used: "
            f"{' '.join(saved.skipped.values()) or 'it is missing.'} Fetch the run again, or use another folder."
        )
    found = Resumption(request, folder, saved)
    if not is_extendable(found.experiment) and found.experiment.epochs != request.experiment.epochs:
        info(f"The learning rate falls over {found.experiment.epochs} epochs, not {request.experiment.epochs}.")
    return found


def fetch_from_drive(delivery: Delivery, have: int, info: Say, run: str | None = None) -> dict[str, Any]:
    """Fetch the newest checkpoint from Drive if it is newer than the one here, and say what was skipped.

    Args:
        delivery: `Delivery`.
        have: epoch of the newest checkpoint here that verifies, 0 for none.
        info: callable that shows a message.
        run: the run's fingerprint, or None where it is not known yet.

    Returns:
        A dict of `fetched` (the checkpoint's name, or None where there is nothing newer), `run` and `session_run`, as
        `DriveFolder.fetch` returns them; `Delivery.take` puts the checkpoint among the run's.

    Raises:
        AnotherRunError: Drive holds another run.
        Error: it cannot be read and nothing is here: the run may be on Drive, so none is started.
    """
    try:
        answer = delivery.fetch(have, run)
    except AnotherRunError:
        raise
    except Error as error:
        if not have:
            raise Error(f"{error} Nothing was started, since the run may be there.") from None
        info(f"{error} Training continues from the checkpoint here; it is delivered when Drive is back.")
        return {"fetched": None, "run": None, "session_run": None}
    for reason in answer["skipped"].values():
        info(f"Skipped: {reason}")
    if answer["fetched"]:
        info(f"Fetched from {delivery.drive}: {answer['fetched']}, epoch {epoch_of(answer['fetched'])}, verified.")
    elif answer["unreadable"] and not have:
        raise Error(
            f"no checkpoint in {delivery.drive} can be read, and there is none here. Nothing was started, since the "
            "run may be there: give the same call again later, or use another folder."
        )
    elif answer["skipped"] and not have and (kept := delivery.move_aside(list(answer["skipped"]))):
        info(f"No checkpoint in {delivery.drive} verifies; they are kept in {kept}.")
    return answer


def move_run_aside(folder: RunFolder, delivery: Delivery | None, info: Say) -> None:
    """Move the run in the folders aside, on Drive first: what is left there would be continued."""
    kept = [delivery.move_aside()] if delivery else []
    present = [path for path in (*folder.small_files, folder.shared_json, folder.checkpoints) if path.exists()]
    kept += [move_aside(folder.path, present)] if present else []
    for target in filter(None, kept):
        info(f"The former run is kept in {target}.")


def move_unusable_aside(folder: RunFolder, saved: SavedRun, info: Say) -> None:
    """Move away what training would overwrite and what cannot be used, and say so; nothing is deleted."""
    folder.remove_partials()
    last = _last_epoch(folder.history_csv)
    if saved.checkpoint and last > saved.epoch:
        info(
            f"history.csv ends with epoch {last}, the newest checkpoint that verifies is of epoch {saved.epoch}: the "
            "epochs between them are trained again."
        )
    for reason in saved.skipped.values():
        info(f"Skipped: {reason}")
    unusable = list(saved.skipped)
    if saved.checkpoint is None:
        unusable += [path for path in folder.small_files if path != folder.run_json]
    if any(path.exists() for path in unusable):
        kept = move_aside(folder.path, unusable)
        epoch = f"continues with epoch {saved.epoch + 1}" if saved.checkpoint else "starts with epoch 1"
        info(f"What cannot be used is kept in {kept}; training {epoch}.")


def _continued(saved: SavedRun, wanted: dict[str, Any], where: Path) -> SavedRun:
    """Return what is saved if it is the run that is wanted; this alone decides whether it is the same run.

    Another run without a checkpoint, such as one that was stopped in its first epoch, is in nobody's way: it is as if
    nothing were saved.

    Raises:
        Error: it is another run.
    """
    if saved.record is None or not (differs := first_difference(saved.record.identity(), wanted)):
        return saved
    if saved.checkpoint is None and not saved.skipped:
        return SavedRun()
    _refuse(where, *differs)
    return saved


def _refuse(where, name, saved_value, wanted_value):
    why = ", over which its learning rate falls" if name == "experiment.epochs" else ""
    raise Error(
        f"{where} holds another run: its {name} is {saved_value!r}{why}, now given {wanted_value!r}; give what it was "
        "started with, or use another folder.",
        "another_run",
    )


def _with_drive(folder, saved, wanted, delivery, info):
    """Return what is saved once Drive's newest checkpoint is here; another run's is refused and not kept."""
    answer = fetch_from_drive(delivery, saved.epoch, info)
    name = answer["fetched"]
    try:
        checkpoint = read_checkpoint(folder.checkpoints / f"{name}{FETCHED_SUFFIX}") if name else None
        records = [_record_on_drive(answer["run"], delivery.drive)]
        records += [record_of(checkpoint, delivery.drive)] if checkpoint else []
        for record in filter(None, records):
            for identity in (wanted, saved.record.identity() if saved.record else {}):
                if differs := first_difference(record.identity(), identity):
                    _refuse(delivery.drive, *differs)
        if saved.record and answer["session_run"] not in (None, saved.record.fingerprint()):
            raise AnotherRunError(f"{delivery.drive} holds another run; use another folder.")
    except BaseException:
        delivery.take(None)
        raise
    delivery.take(name)
    if checkpoint is None:
        return saved
    skipped = {path: reason for path, reason in saved.skipped.items() if epoch_of(path) > checkpoint.epoch}
    return SavedRun(saved.record or records[-1], replace(checkpoint, name=name), skipped)


def _record_on_drive(value, drive):
    """Return the record in Drive's `run.json`, or None where it cannot be read: the checkpoint has one, too."""
    try:
        return None if value is None else RunRecord.from_json(value, f"{drive}/run.json")
    except UnknownFormatError:
        raise
    except Error:
        return None


def _last_epoch(history_csv):
    """Return the last epoch of a history whose last line a kill may have truncated, 0 where there is none."""
    try:
        return read_history(history_csv)["epoch"][-1]
    except (Error, IndexError):
        return 0


def is_extendable(experiment: Experiment) -> bool:
    """Return whether a run of the experiment can be of another length: its learning rate does not depend on it."""
    return isinstance(experiment.schedule, Constant)
