"""One start of a run: from its newest checkpoint to the end of its epochs or of its hours."""

import datetime
import gc
import math
import re
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from colabcnn import onednn
from colabcnn.data.split import Split
from colabcnn.drive.delivery import Delivery
from colabcnn.errors import Error, Interrupted, cause_of
from colabcnn.experiments.execution import Execution
from colabcnn.experiments.experiment import Experiment
from colabcnn.network import devices
from colabcnn.network.batch_norm import RenewStatistics
from colabcnn.network.model import build_model
from colabcnn.network.optimizers import make_loss, make_optimizer
from colabcnn.network.training_model import VALIDATION_BATCH_SIZE, PlanEpoch, TrainingModel, in_batches
from colabcnn.network.variables import assign_arrays, read_arrays
from colabcnn.store.checkpoint import Checkpoint
from colabcnn.store.history import empty_history, write_history
from colabcnn.store.run_folder import RunFolder, read_saved
from colabcnn.store.run_record import RunRecord, Start
from colabcnn.training.display import Display
from colabcnn.training.interruption import Interruption
from colabcnn.training.progress import ProgressLine
from colabcnn.training.recorder import Recorder
from colabcnn.version import commit

_LACKS_MEMORY = re.compile(r"resource_?exhausted|out.of.memory|\bOOM\b|allocate memory|ALLOC_FAILED", re.IGNORECASE)


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
        model = _executable_model(session, split)
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


def compiled_model(
    experiment: Experiment, split: Split, *, seed: int, precision: str, execution: Execution = devices.PLAIN
) -> TrainingModel:
    """Return the `TrainingModel`, compiled, with its state built."""
    network = build_model(experiment, seed=seed, precision=precision)
    model = TrainingModel(network, split, experiment, execution)
    steps_per_epoch = math.ceil(len(split.train_labels) / experiment.batch_size)
    model.compile(
        make_optimizer(experiment, steps_per_epoch=steps_per_epoch, precision=precision),
        loss=make_loss(experiment),
        metrics=["accuracy"],
        steps_per_execution=model.batches_per_call,
        jit_compile=execution.xla or devices.backend() == "jax",  # pyright: ignore[reportArgumentType]  # Its default is "auto", a text.
    )
    model.build_state()
    return model


def fit_options(model: TrainingModel, train_size: int, val_size: int) -> dict:
    """Return the arguments for `fit` of a `TrainingModel`, for these numbers of images."""
    validation = in_batches(np.arange(val_size), batch_size=VALIDATION_BATCH_SIZE * model.steps_per_batch)
    return {
        **in_batches(np.arange(train_size), batch_size=model.batch_size * model.steps_per_batch),
        # `fit` expects arrays in a tuple, but a dataset alone.
        "validation_data": (validation["x"],) if "batch_size" in validation else validation["x"],
        "validation_batch_size": validation.get("batch_size"),
        "shuffle": False,  # The plan is the order.
        "verbose": 0,
    }


def try_out(model: TrainingModel, record: RunRecord) -> None:
    """Compile the calls of a run by making one of each shape; restore the state.

    Args:
        model: `TrainingModel`, compiled, with its state built.
        record: the run's.

    Raises:
        Exception: any error of the device. The model must not be used any more.
    """

    def full_and_rest(size, batch_size):
        full = batch_size * model.execution.steps_per_call
        return min(size, full + size % full)

    sizes = full_and_rest(record.train_size, model.batch_size), full_and_rest(record.val_size, VALIDATION_BATCH_SIZE)
    plan = PlanEpoch(record.experiment, record.seed, record.train_size)
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    before = read_arrays(variables)
    model.fit(**fit_options(model, *sizes), epochs=1, callbacks=[plan])
    assign_arrays(variables, before, "variables")


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


def _executable_model(session, split):
    """Return the model with the execution of the run's last start on this device, or that suits it, or a plain one.

    A GPU may refuse the compiled step, or lack the memory for it, with errors that nobody has seen. A run matters more
    than its speed.
    """
    record = session.record
    execution, refused = execution_of(record.starts, session.progress.info)
    model_of = {"experiment": record.experiment, "split": split, "seed": record.seed, "precision": record.precision}
    model = compiled_model(**model_of, execution=execution)
    if execution.steps_per_call > 1:
        session.progress.info(f"Compiles and tries out {execution.in_words()}; this may take minutes, at each start.")
        # For the next start, if this process ends here.
        session.write_start(refused=f"{execution.in_words()}: the process ended while it was tried out")
        try:
            try_out(model, record)
        except KeyboardInterrupt:
            session.write_start(refused=None)
            raise
        except Exception as error:
            refused = _report_refusal(session, error, execution.in_words())
            model = None
    session.write_start(refused=refused)
    if model is None:
        gc.collect()  # The device's memory may be full; until now the error held what was on it.
        execution = devices.plain_execution()
        model = compiled_model(**model_of, execution=execution)
    session.write_start(execution=execution)
    return model


def _report_refusal(session, error, refused):
    """Report in a line that training uses plain steps, and keep the complete traceback in the run's folder."""
    path = session.folder.path / "refused-execution.txt"
    path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    reason = cause_of(error)[:200]
    session.progress.info(
        f"{refused} failed on this device ({reason}); training continues with one plain step a "
        f"call. The complete error is in {path}."
    )
    return f"{refused}: {reason}"


def execution_of(starts: Sequence[Start], info: Callable[[str], None]) -> tuple[Execution, str | None]:
    """Return the run's last `Execution` on this device and backend, else the one that suits the device.

    One that failed is tried again with other versions, or if the device lacked memory; one whose trial ended the
    process, once more. A killed runtime may have been the cause of that.

    Args:
        starts: the run's; the last one is this one.
        info: callable that shows a message.

    Returns:
        The execution; and the one that failed before, with the reason, or None.
    """
    now, suitable, ended = starts[-1], devices.auto_execution(), 0
    for start in reversed(starts[:-1]):
        if (start.device, start.backend) != (now.device, now.backend) or not (start.execution or start.refused):
            continue
        if start.refused:
            if (start.versions, start.commit) != (now.versions, now.commit):
                break
            ended += start.execution is None
            if (ended == 1 and start.execution is None) or _LACKS_MEMORY.search(start.refused):
                continue
        kept = start.execution or devices.plain_execution()
        if kept != suitable:
            reason = f" It failed before: {start.refused}." if start.refused else ""
            info(f"The run keeps its execution on this device: {kept.in_words()}.{reason}")
        return kept, start.refused
    return suitable, None


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
