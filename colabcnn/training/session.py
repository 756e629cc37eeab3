"""One start of a run: from its newest checkpoint to the end of its epochs or of its hours."""

import datetime
import time
from dataclasses import dataclass
from typing import Any

from colabcnn import onednn
from colabcnn.data.split import Split
from colabcnn.drive.delivery import Delivery
from colabcnn.errors import Error, Interrupted
from colabcnn.network import devices
from colabcnn.network.batch_norm import RenewStatistics
from colabcnn.network.training_model import PlanEpoch
from colabcnn.network.variables import assign_arrays
from colabcnn.store.checkpoint import Checkpoint
from colabcnn.store.history import empty_history, write_history
from colabcnn.store.run_folder import RunFolder, read_saved
from colabcnn.store.run_record import RunRecord, Start
from colabcnn.training.display import Display
from colabcnn.training.executable_model import executable_model, fit_options
from colabcnn.training.interruption import Interruption
from colabcnn.training.progress import ProgressLine
from colabcnn.training.recorder import Recorder
from colabcnn.version import commit


@dataclass
class Session:
    """The objects that one start of a run uses.

    Args:
        folder: `RunFolder`.
        record: the run's; this start is added to it.
        checkpoint: `Checkpoint` that the run continues from, or None.
        interruption: `Interruption`, entered.
        progress: `ProgressLine`.
        delivery: `Delivery`, or None.
        deadline: `time.monotonic()` at which the hours have passed, or None.
        checkpoint_minutes: minutes between two checkpoints, at least; 0 takes one every epoch.
        same_call: what continues the run, in words.
    """

    folder: RunFolder
    record: RunRecord
    checkpoint: Checkpoint | None
    interruption: Interruption
    progress: ProgressLine
    delivery: Delivery | None = None
    deadline: float | None = None
    checkpoint_minutes: float = 1
    same_call: str = "the same call"

    @property
    def epochs_done(self) -> int:
        """How many epochs were done before this start."""
        return self.checkpoint.epoch if self.checkpoint else 0

    def write_start(self, **changes: Any) -> None:
        """Change this start in the record, and write `run.json`."""
        self.record = self.record.with_last_start(**changes)
        self.folder.write_record(self.record)

    def seconds_for_delivery(self, most: float) -> float:
        """Return how many seconds the last delivery may take, at most `most`: as many as a signal or the hours leave.

        An epoch may have taken longer than the hours: then, as many as are reserved for a delivery.
        """
        reserved = self.delivery.reserved_seconds if self.delivery else 0.0
        left = most if self.deadline is None else max(reserved, self.deadline - time.monotonic())
        return self.interruption.seconds_left() or min(most, left)


def train_session(session: Session, split: Split, callbacks: tuple = ()) -> str:
    """Train from the checkpoint, or from the beginning, to the end of the epochs or of the hours.

    Args:
        session: `Session`; this start is added to its record.
        split: `Split`.
        callbacks: the user's own, and those of `run`.

    Returns:
        Why it ended, as a sentence.

    Raises:
        Error: a loss that is not finite; a checkpoint that does not fit this version of Keras.
        KeyboardInterrupt: after Ctrl-C or SIGTERM.
    """
    _announce(session)
    record, checkpoint, progress = session.record, session.checkpoint, session.progress
    history = checkpoint.metadata["history"] if checkpoint else empty_history()
    write_history(session.folder.history_csv, history)
    plan = PlanEpoch(record.experiment, record.seed, record.train_size)
    recorder = Recorder(session, history, callbacks)
    display = Display(session, recorder)
    if session.delivery:
        session.delivery.begin(record.fingerprint())
    if record.experiment.precise_batch_norm:
        callbacks = (RenewStatistics(), *callbacks)
    ended = None
    try:
        model = executable_model(session, split)
        if checkpoint:
            assign_arrays(model.network.weights, checkpoint.arrays["model"], "weights")
            assign_arrays(model.optimizer.variables, checkpoint.arrays["optimizer"], "optimizer variables")
        model.fit(
            **fit_options(model, record.train_size, record.val_size),
            epochs=record.experiment.epochs,
            initial_epoch=session.epochs_done,
            callbacks=[plan, *callbacks, recorder, display],
        )
        if session.interruption.at is not None and not recorder.complete:
            raise KeyboardInterrupt
        ended = recorder.reason
        return ended
    except KeyboardInterrupt:
        ended = "interrupted"
        display.show_curves()
        display.refresh_picture()
        raise Interrupted(f"the run was stopped; {session.same_call} continues it.") from None
    except Error as error:
        ended = str(error)
        raise
    finally:
        session.interruption.allow(None)
        progress.end()
        recorder.writer.wait()
        if ended is not None:
            session.write_start(ended=ended, last_epoch=history["epoch"][-1] if history["epoch"] else 0)
        if ended == "interrupted":
            progress.info(f"Stopped. {_status(session)}")


def _announce(session):
    """Add this start to the record, and report it."""
    record, progress = session.record, session.progress
    start = Start(
        time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        first_epoch=session.epochs_done + 1,
        device=devices.device_name(),
        versions=devices.versions(),
        commit=commit(),
        onednn=onednn.is_on() if devices.is_cpu() and devices.backend() == "tensorflow" else None,
    )
    session.record = record.with_start(start)
    session.folder.write_record(session.record)
    if session.checkpoint:
        progress.info(f"Continues after epoch {session.checkpoint.epoch}.")
    progress.info(
        f"{record.experiment.name}, seed {record.seed}: epoch {start.first_epoch} to {record.experiment.epochs} on "
        f"{start.device}, {record.precision}, {record.train_size} training and {record.val_size} validation images, in "
        f"{session.folder.path}"
    )
    if record.starts:
        _report_changes(record, start, progress)


def _report_changes(record, now, progress):
    """Report another device, versions or commit than those of the run's last start."""
    before, precision = record.starts[-1], record.precision
    changed = [f"{before.device} before, {now.device} now"] if before.device != now.device else []
    changed += [
        f"{name} {before.versions.get(name, 'none')} before, {version} now"
        for name, version in now.versions.items()
        if before.versions.get(name) != version
    ]
    if before.commit != now.commit:
        # A changed checkout cannot be installed.
        is_published = before.commit and not before.commit.endswith("-dirty")
        former = f' To get the former, set CODE = "{before.commit}" in the notebook.' if is_published else ""
        progress.info(f"colabcnn's commit was {before.commit or 'not known'}, now {now.commit or 'not known'}.{former}")
    if changed:
        masks = "dropout may draw other masks, and " if record.experiment.dropout else ""
        progress.info(f"{'; '.join(changed)}: the same state, order and augmentation; {masks}the last bits may differ.")
    if None not in (before.onednn, now.onednn) and before.onednn != now.onednn:
        progress.info(
            f"TensorFlow used oneDNN before: {before.onednn}, now: {now.onednn}; the last bits may differ. To keep "
            f"them, set {onednn.VARIABLE}={int(before.onednn)} before Python starts."
        )
    if before.device != now.device and precision != (suitable := devices.auto_precision()):
        progress.info(f"The run keeps {precision} from its first start; {suitable} would suit this device better.")


def _status(session):
    epoch = read_saved(session.folder).epoch
    return (
        f"The checkpoint of epoch {epoch} is kept; {session.same_call} continues from it."
        if epoch
        else f"No checkpoint was taken yet; {session.same_call} starts with epoch 1."
    )
