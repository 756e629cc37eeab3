"""`run`: start a run, resume it, or return its result; always the same call."""

import contextlib
import functools
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import keras

from colabcnn.colab import seconds_since_start
from colabcnn.data.split import load_split
from colabcnn.drive.delivery import FINISH_SECONDS, Delivery
from colabcnn.errors import Error
from colabcnn.experiments.experiment import Experiment
from colabcnn.inspection.weights import write_model
from colabcnn.network import devices
from colabcnn.store.files import disk_errors_readable, expand, is_same_folder
from colabcnn.store.history import best_of, write_history
from colabcnn.store.lock import Lock
from colabcnn.store.run_folder import RunFolder, open_checkpoint
from colabcnn.training import resume
from colabcnn.training.checkpoint_to_drive import CheckpointToDrive
from colabcnn.training.interruption import Interruption
from colabcnn.training.long_run import LongRunGuard
from colabcnn.training.profiling import ProfileSteps
from colabcnn.training.progress import ProgressLine
from colabcnn.training.request import RunRequest, options_as_text
from colabcnn.training.session import Session, train_session
from colabcnn.viewing.curves import save_curves_if_possible
from colabcnn.viewing.live import LiveCurves


@dataclass(frozen=True)
class Result:
    """The status of a run when `run` returns.

    Args:
        run_dir: the run's folder.
        history: columns `epoch` (from 1), `loss`, `accuracy`, `val_loss`, `val_accuracy`, `learning_rate`
            (at the epoch's beginning) and `seconds`, each a list with one value per epoch.
        complete: whether nothing is left to train.
        reason: why it ended, as a sentence.
    """

    run_dir: Path
    history: dict[str, list] = field(repr=False)
    complete: bool
    reason: str


def run(
    experiment: Experiment | str,
    run_dir: str | Path,
    *,
    drive_folder: str | Path | None = None,
    data: str | Path = "cifar10",
    epochs: int | None = None,
    holdout: int = 0,
    train_size: int | None = None,
    val_size: int | None = None,
    seed: int = 0,
    hours: float | None = None,
    precision: str = "auto",
    checkpoint_minutes: float = 1,
    drive_minutes: float = 10,
    start_over: bool = False,
    allow_long: bool = False,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    profile: str | Path | None = None,
    quiet: bool = False,
) -> Result:
    """Train an experiment in a folder; called again with the same folder, continue the same run.

    On a CPU, with the same versions and number of threads, a stopped and resumed run has bit for bit the weights, the
    optimizer's state and the history of a run that was never stopped. On a GPU or TPU it has the same state, order and
    augmentation, but the last bits may differ. A finished run is returned without training.

    Args:
        experiment: an `Experiment`, or the name of one in `ABLATIONS` or `RECIPES`.
        run_dir: the run's folder on a local disk; made if missing.
        OPTIONS

    Returns:
        A `Result`.

    Raises:
        Error: bad arguments; data that cannot be loaded; a folder that cannot be written, holds another run or is in
            use; a `drive_folder` that cannot be read while there is no local checkpoint; a loss that is not finite.
            Nothing in the folders is lost.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once the current epoch has ended if that takes 15 seconds at most;
            the newest checkpoint is kept, and the same call continues from it.
    """
    request = RunRequest(**locals())
    start = time.monotonic() - seconds_since_start()
    _check_callbacks(request)
    devices.keep_compilations()
    folder, progress = RunFolder(expand(run_dir)), ProgressLine(quiet)
    folder.create()
    same_call = "the same call without start_over" if start_over else "the same call"
    with contextlib.ExitStack() as stack:
        interruption = stack.enter_context(Interruption(progress.info))
        stack.enter_context(disk_errors_readable(folder.path, f"make room or repair it, and give {same_call} again"))
        stack.enter_context(Lock(folder.path))
        delivery = _delivery(request, folder, progress, stack)
        sizes = {"train_size": request.train_size, "val_size": request.val_size, "holdout": request.holdout}
        load = functools.cache(functools.partial(load_split, data, **sizes))
        if start_over:
            load()  # Bad data is refused before the former run is moved.
            resume.move_run_aside(folder, delivery, progress.info)
        resumption = resume.find(request, folder, delivery, progress.info)
        if resumption.is_finished:
            return _return_finished(resumption, delivery, progress)
        split = load()
        precision = devices.auto_precision() if resumption.precision == "auto" else resumption.precision
        resumption, record = resumption.with_data(split, precision)
        resume.move_unusable_aside(folder, resumption.saved, progress.info)
        checkpoint, deadline = resumption.saved.checkpoint, start + hours * 3600 if hours else None
        session = Session(
            folder, record, checkpoint, interruption, progress, delivery, deadline, checkpoint_minutes, same_call
        )
        try:
            reason = train_session(session, split, _callbacks(request, record, progress, stack))
            result = _finish(folder, record.experiment.epochs, progress, reason)
            progress.info(_in_words(result))
            return result
        finally:
            if delivery and delivery.begun:
                delivery.finish(session.seconds_for_delivery(FINISH_SECONDS))


# From Python 3.13 on the compiler takes a docstring's common indentation away.
run.__doc__ = re.sub("^( *)OPTIONS$", lambda line: options_as_text(line[1]), run.__doc__ or "", flags=re.MULTILINE)


def _delivery(request, folder, progress, stack):
    if request.drive_folder is None:
        return None
    drive = expand(request.drive_folder)
    if is_same_folder(folder.path, drive):
        raise Error(f"drive_folder is {drive}, which run_dir is too; expected a run_dir on the local disk.")
    delivery = Delivery(folder.path, drive, minutes=request.drive_minutes, info=progress.info)
    return stack.enter_context(contextlib.closing(delivery))


def _callbacks(request, record, progress, stack):
    """Return the user's callbacks and those that the request's options need."""
    callbacks = [*request.callbacks]
    if not request.allow_long and devices.is_cpu():
        callbacks.append(LongRunGuard(record, request.hours))
    if request.profile is not None:
        profiler = ProfileSteps(request.profile, progress.info)
        stack.callback(profiler.close)
        callbacks.append(profiler)
    return tuple(callbacks)


def _return_finished(resumption, delivery, progress):
    """Return the result of a finished run, and deliver the files that Drive lacks."""
    folder, record = resumption.folder, resumption.saved.record
    folder.remove_partials()
    result = _finish(folder, resumption.experiment.epochs, progress)
    if folder.read_record() != record:  # The checkpoint is from Drive.
        folder.write_record(record)
    if resumption.request.profile is not None:
        progress.info("No trace was taken: nothing is left to train.")
    trained = "".join(f" Trained on {start.device}, last on {start.time[:10]}." for start in record.starts[-1:])
    progress.info(f"Nothing is left to train. {_in_words(result)}{trained}")
    with contextlib.suppress(Exception):  # A picture is never worth an error.
        curves = LiveCurves(folder.path, progress.show_html)
        curves.show_picture(folder.curves_png.read_bytes())
        curves.show(result.history, record)
    if delivery:
        delivery.finish(FINISH_SECONDS, fingerprint=record.fingerprint())
    return result


def _in_words(result):
    """Return where a run is, why it ended, and its last and best validation accuracy."""
    best, value = best_of(result.history)
    return (
        f"{result.run_dir}: {result.reason}. Validation accuracy {result.history['val_accuracy'][-1]:.4f} in the last "
        f"epoch, {value:.4f} in the best, epoch {best}."
    )


def _finish(folder, epochs, progress, reason=None):
    """Write the folder's other files from the newest checkpoint, and return the `Result`."""
    _, _, checkpoint = open_checkpoint(folder.path)
    newest = folder.checkpoints / checkpoint.name
    history, complete = checkpoint.metadata["history"], checkpoint.metadata["complete"]
    reason = reason or checkpoint.metadata["reason"]
    if not complete and checkpoint.epoch >= epochs:
        complete, reason = True, f"{checkpoint.epoch} epochs are done and {epochs} requested"
    write_history(folder.history_csv, history)
    if _is_older(folder.curves_png, newest):
        save_curves_if_possible(folder.path, folder.curves_png, progress.info)
    if complete and _is_older(folder.model_keras, newest):
        write_model(folder, checkpoint)
    return Result(folder.path, history, complete, reason)


def _is_older(path, newest):
    return not path.exists() or path.stat().st_mtime < newest.stat().st_mtime


def _check_callbacks(request):
    """Refuse at once the callbacks that Keras would refuse later, or that would spoil a resume."""
    kinds = [type(callback) for callback in request.callbacks]
    if others := [kind.__name__ for kind in kinds if not issubclass(kind, keras.callbacks.Callback)]:
        raise Error(f"callbacks contain {', '.join(others)}; expected a list of keras.callbacks.Callback.")
    if names := _names(kinds, (keras.callbacks.BackupAndRestore, CheckpointToDrive)):
        raise Error(f"callbacks contain {names}; leave it out: `run` resumes by itself and delivers to drive_folder.")
    if names := _names(kinds, (keras.callbacks.SwapEMAWeights,)):
        raise Error(f"callbacks contain {names}, which needs an optimizer with use_ema; no experiment has one.")
    names = _names(kinds, (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau))
    if names and not request.experiment.is_extendable:
        raise Error(
            f"callbacks contain {names}, which sets the learning rate, as {request.experiment.name}'s schedule does, "
            f"{request.experiment.schedule}; expected only one of them: leave the callback out, or give an experiment "
            "with schedule=Constant()."
        )


def _names(kinds, of):
    return ", ".join(kind.__name__ for kind in kinds if issubclass(kind, of))
