"""What a run goes on from: the newest checkpoint that verifies, here or on Drive; and what stands in its way."""

from dataclasses import replace

from colabcnn.errors import AnotherRunError, Error
from colabcnn.store.checkpoint import read_checkpoint
from colabcnn.store.checkpoint_files import BROUGHT, epoch_of
from colabcnn.store.files import set_aside
from colabcnn.store.history import read_history
from colabcnn.store.run_folder import read_saved
from colabcnn.store.run_record import FINGERPRINT, check_same_run, differing_field, fingerprint


def bring_from_drive(delivery, have, say, run=None):
    """Bring the newest checkpoint from Drive if it is newer than what is here, and say what was passed over.

    Args:
        delivery: `Delivery`.
        have: epoch of the newest checkpoint here that verifies, 0 for none.
        say: callable that shows a message.
        run: what tells this run from others, or None where that is not known yet.

    Returns:
        A dict of `fetched` (the checkpoint's name, or None where there is nothing newer), `run` and `session_run`, as
        `DriveFolder.fetch` returns them; `Delivery.take` puts the checkpoint among the run's.

    Raises:
        AnotherRunError: Drive holds another run.
        Error: it cannot be read and there is nothing here: the run may well be there, so none is begun.
    """
    try:
        told = delivery.fetch(have, run)
    except AnotherRunError:
        raise
    except Error as error:
        if not have:
            raise Error(f"{error} Nothing was begun, since the run may be there.") from None
        say(f"{error} Training goes on from the checkpoint here; it is delivered when Drive is back.")
        return {"fetched": None, "run": None, "session_run": None}
    for reason in told["passed_over"].values():
        say(f"Passed over: {reason}")
    if told["fetched"]:
        say(f"Brought from {delivery.drive}: {told['fetched']}, epoch {epoch_of(told['fetched'])}, verified.")
    elif told["unreadable"] and not have:
        raise Error(
            f"no checkpoint in {delivery.drive} can be read, and there is none here. Nothing was begun, since the run "
            "may be there: give the same call again later, or another folder."
        )
    elif told["passed_over"] and not have and (kept := delivery.set_aside(list(told["passed_over"]))):
        say(f"No checkpoint in {delivery.drive} verifies; they are kept in {kept}.")
    return told


def set_run_aside(folder, delivery, say):
    """Put the run that is there aside, on Drive first: what is left there would be taken for the run's."""
    kept = [delivery.set_aside()] if delivery else []
    there = [path for path in (*folder.small_files, folder.checkpoints) if path.exists()]
    kept += [set_aside(folder.path, there)] if there else []
    for target in filter(None, kept):
        say(f"What was there is kept in {target}.")


def with_drive(folder, saved, given, known, delivery, say):
    """Return what is saved once Drive's newest is here; of another run nothing is brought, and it is refused."""
    told = bring_from_drive(delivery, saved.epoch, say)
    brought = told["fetched"]
    try:
        checkpoint = read_checkpoint(folder.checkpoints / f"{brought}{BROUGHT}") if brought else None
        if checkpoint and "run" not in checkpoint.metadata:
            raise Error(
                f"{delivery.drive} holds a fit of CheckpointToDrive and no run of `train`; give another folder."
            )
        for run in (told["run"], checkpoint and checkpoint.metadata["run"]):
            if run:
                check_same_run(delivery.drive, run, given, [field for field in known if field in run])
                if saved.run:
                    check_same_run(delivery.drive, run, saved.run, [f for f in FINGERPRINT if f in run])
        if saved.run and told["session_run"] not in (None, fingerprint(saved.run)):
            raise AnotherRunError(f"{delivery.drive} holds another run; give another folder.")
    except BaseException:
        delivery.take(None)
        raise
    delivery.take(brought)
    return read_saved(folder) if brought else saved


def without_unbegun(saved, given, fields=FINGERPRINT):
    """Return what is saved, without a run that came to no checkpoint and is another one: it stands in nobody's way.

    Such as one that was stopped in its first epoch since it would take too long.

    Args:
        saved: `Saved`.
        given: dict of what tells runs apart, as asked for now.
        fields: which of it to compare.
    """
    if saved.run is None or saved.checkpoint or saved.passed_over:
        return saved
    return replace(saved, run=None) if differing_field(saved.run, given, fields) else saved


def set_aside_unusable(folder, saved, say):
    """Move away what training would overwrite and what cannot be gone on from, and say so; nothing is deleted."""
    folder.remove_partials()
    last = _last_epoch(folder.history_csv)
    if saved.checkpoint and last > saved.epoch:
        say(
            f"history.csv goes on to epoch {last}, the newest checkpoint that verifies to epoch {saved.epoch}: what is "
            "between them is trained again."
        )
    for reason in saved.passed_over.values():
        say(f"Passed over: {reason}")
    unusable = list(saved.passed_over)
    if saved.checkpoint is None:
        unusable += [path for path in folder.small_files if path != folder.run_json]
    if any(path.exists() for path in unusable):
        kept = set_aside(folder.path, unusable)
        epoch = f"goes on at epoch {saved.epoch + 1}" if saved.checkpoint else "begins at epoch 1"
        say(f"What cannot be gone on from is kept in {kept}; training {epoch}.")


def nothing_left(saved, epochs):
    """Return whether a run, as `Saved`, is finished when so many epochs are wanted: done, or ended by EarlyStopping."""
    if saved.checkpoint is None:
        return False
    ended_early = saved.checkpoint.metadata["complete"] and saved.epoch < saved.checkpoint.metadata["run"]["epochs"]
    return saved.epoch >= epochs or (ended_early and epochs <= saved.checkpoint.metadata["run"]["epochs"])


def _last_epoch(history_csv):
    """Return the last epoch of a history that a kill may have cut off in a line, 0 where there is none."""
    try:
        return read_history(history_csv)["epoch"][-1]
    except (Error, IndexError):
        return 0
