"""One start of a run: from its newest checkpoint to the end of its epochs or of its hours."""

import contextlib
import datetime
import signal
import threading

import keras
import numpy as np

from colabcnn import devices
from colabcnn.errors import Error
from colabcnn.history import empty_history, write_history
from colabcnn.model import build_model
from colabcnn.recorder import Recorder
from colabcnn.run_folder import read_saved
from colabcnn.trainer import PlanEpoch, TrainingModel

VALIDATION_BATCH_SIZE = 250


def train_session(folder, experiment, run, checkpoint, split, *, deadline, checkpoint_minutes, callbacks, progress):
    """Train from the checkpoint, or from the beginning, to the end of the epochs or of the hours.

    Args:
        folder: `RunFolder`.
        experiment: `Experiment`.
        run: what `run.json` is to hold; a start is added to it here, and completed when it ends in order.
        checkpoint: `Checkpoint` to go on from, or None.
        split: `Split`.
        deadline: `time.monotonic()` at which the hours are used up, or None.
        checkpoint_minutes: at least so long between two checkpoints.
        callbacks: the user's own.
        progress: `ProgressLine`.

    Raises:
        Error: a loss that is not finite; a checkpoint that does not fit this version of Keras.
        KeyboardInterrupt: after Ctrl-C or SIGTERM.
    """
    done = checkpoint.epoch if checkpoint else 0
    start = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "first_epoch": done + 1,
        "device": devices.device_name(),
        "versions": devices.versions(),
        "commit": devices.commit(),
    }
    run["starts"].append(start)
    folder.write_run(run)
    progress.say(
        f"{experiment.name}, seed {run['seed']}: epoch {done + 1} to {run['epochs']} on {start['device']}, "
        f"{run['precision']}, {run['train_size']} training and {run['val_size']} validation images, in {folder.path}"
    )
    model = compiled_model(experiment, split, seed=run["seed"], precision=run["precision"])
    history = checkpoint.metadata["history"] if checkpoint else empty_history()
    if checkpoint:
        _assign(model.network.weights, checkpoint.model, "weights")
        _assign(model.optimizer.variables, checkpoint.optimizer, "optimizer variables")
    write_history(folder.history_csv, history)
    plan = PlanEpoch(experiment, run["seed"], run["train_size"])
    recorder = Recorder(
        folder,
        run,
        history,
        checkpoint.best if checkpoint else None,
        checkpoint_minutes=checkpoint_minutes,
        deadline=deadline,
        progress=progress,
    )
    try:
        with _sigterm_as_interrupt():
            model.fit(
                np.arange(run["train_size"]),
                batch_size=experiment.batch_size,
                validation_data=(np.arange(run["val_size"]),),
                validation_batch_size=VALIDATION_BATCH_SIZE,
                epochs=run["epochs"],
                initial_epoch=done,
                shuffle=False,  # The plan is the order.
                verbose=0,
                callbacks=[plan, *callbacks, recorder],
            )
        start["ended"] = recorder.reason
    except KeyboardInterrupt:
        start["ended"] = "interrupted"
        progress.say(f"Stopped. {_where_it_stands(folder)}")
        raise
    except Error as error:
        start["ended"] = str(error)
        raise
    finally:
        progress.end()
        start["last_epoch"] = history["epoch"][-1] if history["epoch"] else 0
        if "ended" in start:
            folder.write_run(run)


def compiled_model(experiment, split, *, seed, precision):
    """Return the `TrainingModel`, compiled, with all of its state in place."""
    network = build_model(experiment, seed=seed, precision=precision)
    optimizer = keras.optimizers.Adam(experiment.learning_rate)
    if precision == "mixed_float16":
        # Keras does this by itself under a global float16 policy only.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model = TrainingModel(network, split)
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.build_state()
    return model


def _assign(variables, arrays, what):
    if [tuple(variable.shape) for variable in variables] != [array.shape for array in arrays]:
        raise Error(
            f"the checkpoint's {what} ({len(arrays)} arrays) do not fit this Keras ({len(variables)} variables); "
            "go on with the versions that the last start in run.json names."
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _where_it_stands(folder):
    epoch = read_saved(folder).epoch
    return (
        f"The checkpoint of epoch {epoch} stands; the same call goes on from it."
        if epoch
        else "No checkpoint was taken yet; the same call begins at epoch 1."
    )


@contextlib.contextmanager
def _sigterm_as_interrupt():
    """Treat SIGTERM as Ctrl-C while training; only the main thread may set a handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
