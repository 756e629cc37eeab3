"""`run`: begin a run, go on with it, or return what it became; always the same call."""

import contextlib
import time
from dataclasses import dataclass, replace
from pathlib import Path

import keras

from colabcnn.colab import seconds_since_start
from colabcnn.data.split import data_name, load_split
from colabcnn.drive.delivery import FINISH_SECONDS, Delivery
from colabcnn.errors import Error
from colabcnn.experiments.catalog import find_experiment
from colabcnn.experiments.experiment import PRECISIONS
from colabcnn.inspection.weights import write_model
from colabcnn.network import devices
from colabcnn.store.files import DISK_ERRORS
from colabcnn.store.history import write_history
from colabcnn.store.lock import Lock
from colabcnn.store.run_folder import FETCHED, read_saved, run_folder
from colabcnn.store.run_record import check_same_run, fingerprint
from colabcnn.training.interruption import Interruption
from colabcnn.training.long_run import LongRunGuard
from colabcnn.training.profiling import ProfileSteps
from colabcnn.training.progress import ProgressLine
from colabcnn.training.resume import nothing_left, set_aside_unusable, set_run_aside, with_drive, without_unbegun
from colabcnn.training.session import train_session
from colabcnn.viewing.curves import save_curves


@dataclass(frozen=True)
class Result:
    """How a run stands when `run` returns.

    Args:
        run_dir: the run's folder.
        history: columns `epoch` (from 1), `loss`, `accuracy`, `val_loss`, `val_accuracy`, `learning_rate`
            (at the epoch's beginning) and `seconds`, each a list with one value an epoch.
        complete: whether nothing is left to train.
        reason: why it ended, as a sentence.
    """

    run_dir: Path
    history: dict[str, list]
    complete: bool
    reason: str


def run(
    experiment,
    run_dir,
    *,
    drive_folder=None,
    data="cifar10",
    epochs=None,
    train_size=None,
    val_size=None,
    seed=0,
    hours=None,
    precision="auto",
    holdout=0,
    checkpoint_minutes=1,
    drive_minutes=10,
    start_over=False,
    allow_long=False,
    callbacks=(),
    profile=None,
    quiet=False,
):
    """Train an experiment in a folder; called again on the same folder, go on with the same run.

    A run that was stopped anywhere and goes on has bit for bit the weights, the optimizer's state and the history of
    one that was never stopped, on a CPU with the same versions and number of threads. On a GPU or TPU it is the same
    state, order and augmentation, where the last bits may differ. A finished run is returned and nothing is trained.

    Args:
        experiment: an `Experiment`, or the name of one in `ABLATIONS` or `RECIPES`.
        run_dir: the run's folder on a local disk; made if missing.
        drive_folder: where the run's files are delivered as it goes, such as a folder on Google Drive; a run that is
            there and not in `run_dir`, or further on there, is gone on with. Training never waits for it.
        data: "cifar10", "synthetic" (drawn by code, needs nothing), or a folder with the official CIFAR-10 files.
        epochs: how many in all; None takes the run's own number, at first the experiment's. More than before extends a
            run, no more than are done returns it; but where the rate falls to the last epoch, another number is another
            run, and refused.
        train_size: train on the first so many images; None takes all, and whatever it was of a finished run.
        val_size: validate on the first so many images; None takes all.
        seed: int from 0; weights, order, augmentation and dropout are functions of it.
        hours: end in order, with a checkpoint that is delivered, before so many hours from now are used up (in Colab:
            from the start of the runtime), but not before one epoch is done; None sets no limit.
        precision: "float32", "mixed_float16", "mixed_bfloat16", or "auto": what suits the device (16 bit where that is
            faster). A run keeps the precision that it began with.
        holdout: 0 validates on the test set, as the article does; N on N training images, which are not trained on.
        checkpoint_minutes: at least so many minutes between two checkpoints; 0 takes one at every epoch. The end of a
            run, and of its hours, always takes one, and so does every epoch of more than 15 seconds.
        drive_minutes: so many minutes between two deliveries to `drive_folder`; the end always delivers.
        start_over: set the run that is in the folders aside, into `set-aside-<n>` beside it, and begin anew.
        allow_long: train even where, on a CPU, more than 40 hours are left; otherwise that stops after the first steps,
            with what would fit.
        callbacks: Keras callbacks of your own; their `model` is a `keras.Model` whose one child is the network. Where a
            call makes several steps, on a GPU or TPU, those for batches are called once a call. Those that set the
            learning rate are for experiments without a schedule.
        profile: a folder for a trace of ten calls of the compiled step, which TensorBoard opens, under JAX Perfetto
            too; None takes none.
        quiet: print nothing.

    Returns:
        A `Result`.

    Raises:
        Error: bad arguments; data that cannot be had; a folder that cannot be written, holds another run or is being
            trained in; a `drive_folder` that cannot be read while there is nothing here to go on from; a loss that is
            not finite. Nothing that stood in the folders is lost.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once the epoch in hand has ended if that takes 15 seconds at most;
            the newest checkpoint stands, and the same call goes on from it.
    """
    began = time.monotonic() - seconds_since_start()
    experiment = find_experiment(experiment)
    _check_counts(1, epochs=epochs, train_size=train_size, val_size=val_size)
    _check_counts(0, seed=seed, holdout=holdout)
    if hours is not None:
        _check_number("hours", hours, 1e-9, "a number above 0, or None")
    _check_number("checkpoint_minutes", checkpoint_minutes, 0, "a number from 0")
    _check_number("drive_minutes", drive_minutes, 0, "a number from 0")
    if precision != "auto" and precision not in PRECISIONS:
        raise Error(f"precision is {precision!r}; expected auto, {', '.join(PRECISIONS)}.")
    _check_callbacks(callbacks, experiment)
    given = {"experiment": _settings_for(experiment, epochs), "seed": seed, "holdout": holdout, "data": data_name(data)}
    devices.keep_compilations()
    progress = ProgressLine(quiet)
    folder = run_folder(run_dir)
    folder.create()
    with contextlib.ExitStack() as stack:
        interruption = stack.enter_context(Interruption())
        stack.enter_context(_disk_errors_readable(folder))
        stack.enter_context(Lock(folder.path))
        delivery = None
        if drive_folder is not None:
            drive = run_folder(drive_folder).path
            if drive.resolve() == folder.path.resolve():
                raise Error(f"drive_folder is {drive}, which run_dir is too; expected a run_dir on the local disk.")
            delivery = Delivery(folder.path, drive, minutes=drive_minutes, say=progress.say)
            stack.callback(delivery.close)
        if start_over:
            set_run_aside(folder, delivery, progress.say)
        saved = read_saved(folder)
        if (folder.path / FETCHED).exists() and saved.checkpoint is None:
            raise Error(
                f"{folder.path} was handed on without its checkpoint: there is nothing to go on from. Ask for one "
                "exported with --checkpoint, or give another folder."
            )
        given |= {"train_size": train_size, "val_size": val_size, "precision": precision}
        left_open = {"train_size": None, "val_size": None, "precision": "auto"}
        known = [field for field, value in given.items() if value != left_open.get(field, ...)]
        saved = without_unbegun(saved, given, known)
        if saved.run:
            check_same_run(folder.path, saved.run, given, known)
        if delivery:
            saved = with_drive(folder, saved, given, known, delivery, progress.say)
        precision = saved.run["precision"] if saved.run else precision
        epochs = epochs or (saved.run["epochs"] if saved.run else experiment.epochs)
        if experiment.schedule != "constant" and experiment.epochs != epochs:
            progress.say(f"The learning rate falls over {epochs} epochs, not {experiment.epochs}.")
        experiment = replace(experiment, epochs=epochs)
        given["experiment"] = experiment.settings()
        if nothing_left(saved, epochs):
            result = _finish(folder, saved.checkpoint, epochs)
            progress.say(f"{folder.path}: nothing is left to train.")
            if delivery:
                delivery.finish(FINISH_SECONDS, run=fingerprint(saved.run))
            return result
        precision = devices.auto_precision() if precision == "auto" else precision
        split = load_split(data, train_size=train_size, val_size=val_size, holdout=holdout)
        run = {
            **given,
            "data_sha256": split.digest(),
            "train_size": len(split.train_labels),
            "val_size": len(split.val_labels),
            "precision": precision,
            "epochs": epochs,
            "starts": list(saved.run["starts"]) if saved.run else [],
        }
        saved = without_unbegun(saved, run)
        if saved.run:
            check_same_run(folder.path, saved.run, run)
        set_aside_unusable(folder, saved, progress.say)
        deadline = began + hours * 3600 if hours else None
        if not allow_long and devices.is_cpu():
            callbacks = (*callbacks, LongRunGuard(run, experiment.batch_size, hours))
        if profile is not None:
            profiler = ProfileSteps(profile, progress.say)
            stack.callback(profiler.close)
            callbacks = (*callbacks, profiler)
        try:
            reason = train_session(
                folder,
                experiment,
                run,
                saved.checkpoint,
                split,
                deadline=deadline,
                checkpoint_minutes=checkpoint_minutes,
                delivery=delivery,
                callbacks=callbacks,
                interruption=interruption,
                progress=progress,
            )
            return _finish(folder, read_saved(folder).checkpoint, epochs, reason)
        finally:
            if delivery and delivery.begun:
                left = FINISH_SECONDS if deadline is None else min(FINISH_SECONDS, deadline - time.monotonic())
                delivery.finish(max(1.0, interruption.seconds_left() or left))


def _settings_for(experiment, epochs):
    """Return what a run there must match: where no number of epochs is given, that one's schedule may be of any."""
    if epochs is not None:
        return replace(experiment, epochs=epochs).settings()
    return {key: value for key, value in experiment.settings().items() if key != "epochs"}


def _finish(folder, checkpoint, epochs, reason=None):
    """Bring everything else in the folder up to date with the newest checkpoint; a kill may have left it behind."""
    history, complete = checkpoint.metadata["history"], checkpoint.metadata["complete"]
    reason = reason or checkpoint.metadata["reason"]
    if not complete and checkpoint.epoch >= epochs:
        complete, reason = True, f"{checkpoint.epoch} epochs are done and {epochs} asked for"
    write_history(folder.history_csv, history)
    if not folder.curves_png.exists():
        save_curves(folder.path, folder.curves_png)
    if complete:
        write_model(folder, checkpoint)
    return Result(folder.path, history, complete, reason)


def _check_callbacks(callbacks, experiment):
    """Refuse now what Keras would refuse where such a callback first sets the rate, perhaps hours from now."""
    setting = (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)
    names = [type(callback).__name__ for callback in callbacks if isinstance(callback, setting)]
    if names and experiment.schedule != "constant":
        raise Error(
            f"callbacks hold {', '.join(names)}, which sets the learning rate, and so does {experiment.name}'s "
            f"schedule={experiment.schedule!r}; expected one of the two: leave the callback out, or give an experiment "
            "of schedule='constant' and warmup=0.0."
        )


def _check_counts(least, **values):
    for name, value in values.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63):
            raise Error(f"{name} is {value!r}; expected a whole number from {least}.")


def _check_number(name, value, least, expected):
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= least:
        raise Error(f"{name} is {value!r}; expected {expected}.")


@contextlib.contextmanager
def _disk_errors_readable(folder):
    """Say in one message that the disk failed; what was written before stands."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise Error(
            f"{error.filename or folder.path}: {error.strerror or error}. The run stays at its last checkpoint; "
            "make room or mend the folder, and give the same command again."
        ) from error
