"""One start of a run: from its newest checkpoint to the end of its epochs or of its hours."""

import datetime
import math
from dataclasses import asdict

import numpy as np

from colabcnn import onednn
from colabcnn.errors import Error, Interrupted
from colabcnn.network import devices
from colabcnn.network.batch_norm import RenewStatistics
from colabcnn.network.model import build_model
from colabcnn.network.optimizers import make_loss, make_optimizer
from colabcnn.network.training_model import VALIDATION_BATCH_SIZE, PlanEpoch, TrainingModel, in_batches
from colabcnn.network.variables import assign_arrays, read_arrays
from colabcnn.store.history import empty_history, write_history
from colabcnn.store.run_folder import read_saved
from colabcnn.store.run_record import fingerprint
from colabcnn.training.recorder import Recorder


def train_session(
    folder,
    experiment,
    run,
    checkpoint,
    split,
    *,
    deadline,
    checkpoint_minutes,
    delivery,
    callbacks,
    interruption,
    progress,
):
    """Train from the checkpoint, or from the beginning, to the end of the epochs or of the hours.

    Args:
        folder: `RunFolder`.
        experiment: `Experiment`.
        run: what `run.json` is to hold; a start is added to it here, and completed when it ends in order.
        checkpoint: `Checkpoint` to go on from, or None.
        split: `Split`.
        deadline: `time.monotonic()` at which the hours are used up, or None.
        checkpoint_minutes: at least so long between two checkpoints.
        delivery: `Delivery`, or None.
        callbacks: the user's own.
        interruption: `Interruption`, entered.
        progress: `ProgressLine`.

    Returns:
        Why it ended, as a sentence.

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
    if devices.is_cpu() and devices.backend() == "tensorflow":
        start["onednn"] = onednn.is_on()
    before = run["starts"][-1] if run["starts"] else start
    run["starts"].append(start)
    folder.write_run(run)
    if checkpoint:
        progress.say(f"Goes on from {checkpoint.name}.")
    progress.say(
        f"{experiment.name}, seed {run['seed']}: epoch {done + 1} to {run['epochs']} on {start['device']}, "
        f"{run['precision']}, {run['train_size']} training and {run['val_size']} validation images, in {folder.path}"
    )
    _say_what_changed(before, start, run["precision"], progress)
    plan = PlanEpoch(experiment, run["seed"], run["train_size"])
    renewing = [RenewStatistics()] if experiment.precise_batch_norm else []
    history = checkpoint.metadata["history"] if checkpoint else empty_history()
    write_history(folder.history_csv, history)
    recorder = Recorder(
        folder,
        run,
        history,
        checkpoint,
        callbacks,
        checkpoint_minutes=checkpoint_minutes,
        deadline=deadline,
        delivery=delivery,
        interruption=interruption,
        progress=progress,
    )
    if delivery:
        delivery.begin(fingerprint(run))
    try:
        model, execution = _model_that_runs(experiment, split, run, plan, progress)
        start |= asdict(execution)
        folder.write_run(run)
        if checkpoint:
            assign_arrays(model.network.weights, checkpoint.arrays["model"], "weights")
            assign_arrays(model.optimizer.variables, checkpoint.arrays["optimizer"], "optimizer variables")
        model.fit(
            **fit_options(model, run),
            epochs=run["epochs"],
            initial_epoch=done,
            callbacks=[plan, *renewing, *callbacks, recorder],
        )
        if interruption.at is not None and not recorder.complete:
            raise KeyboardInterrupt
        start["ended"] = recorder.reason
        return recorder.reason
    except KeyboardInterrupt:
        start["ended"] = "interrupted"
        recorder.refresh_curves()
        raise Interrupted from None
    except Error as error:
        start["ended"] = str(error)
        raise
    finally:
        interruption.allow(None)
        progress.end()
        recorder.wait()
        start["last_epoch"] = history["epoch"][-1] if history["epoch"] else 0
        if "ended" in start:
            folder.write_run(run)
        if start.get("ended") == "interrupted":
            progress.say(f"Stopped. {_where_it_stands(folder)}")


def compiled_model(experiment, split, *, seed, precision, execution=devices.PLAIN):
    """Return the `TrainingModel`, compiled, with all of its state in place."""
    network = build_model(experiment, seed=seed, precision=precision)
    fill_mode = experiment.augmentation.fill_mode if experiment.augmentation else "nearest"
    model = TrainingModel(network, split, batch_size=experiment.batch_size, execution=execution, fill_mode=fill_mode)
    steps_an_epoch = math.ceil(len(split.train_labels) / experiment.batch_size)
    model.compile(
        make_optimizer(experiment, steps_an_epoch=steps_an_epoch, precision=precision),
        loss=make_loss(experiment),
        metrics=["accuracy"],
        steps_per_execution=model.batches_a_call,
        jit_compile=execution.xla or devices.backend() == "jax",
    )
    model.build_state()
    return model


def fit_options(model, sizes):
    """Return what `fit` of a `TrainingModel` is given.

    Args:
        model: `TrainingModel`.
        sizes: dict with `train_size` and `val_size`, such as `run.json`'s.
    """
    validation = in_batches(np.arange(sizes["val_size"]), batch_size=VALIDATION_BATCH_SIZE * model.steps_a_batch)
    return {
        **in_batches(np.arange(sizes["train_size"]), batch_size=model.batch_size * model.steps_a_batch),
        # Arrays come as a tuple, a dataset as it is.
        "validation_data": (validation["x"],) if "batch_size" in validation else validation["x"],
        "validation_batch_size": validation.get("batch_size"),
        "shuffle": False,  # The plan is the order.
        "verbose": 0,
    }


def _model_that_runs(experiment, split, run, plan, progress):
    """Return `(model, Execution)`: as the run had it or as suits the device, or plainly where that cannot be done.

    A GPU may refuse what was compiled, or lack the memory for it, in ways that nobody has seen. A run matters more than
    its speed.
    """
    execution = _execution_of(run["starts"], progress)
    model_of = {"seed": run["seed"], "precision": run["precision"]}
    model = compiled_model(experiment, split, **model_of, execution=execution)
    if execution.steps_per_call == 1 and (devices.is_cpu() or devices.backend() == "jax"):
        return model, execution
    steps = "one step a call" if execution.steps_per_call == 1 else f"{execution.steps_per_call} steps a call"
    progress.say(f"Compiles and tries out {steps}.")
    try:
        try_out(model, {**fit_options(model, _calls_of_each_shape(model, run)), "callbacks": [plan]})
        return model, execution
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        progress.say(
            f"{steps.capitalize()}{', compiled by XLA,' if execution.xla else ''} failed on this device ({reason}); "
            "training goes on with one plain step a call."
        )
        run["starts"][-1]["refused"] = f"{steps}{', compiled by XLA' if execution.xla else ''}: {reason}"
    del model
    execution = devices.plain_execution()
    return compiled_model(experiment, split, **model_of, execution=execution), execution


def _execution_of(starts, progress):
    """Return how the run's steps were brought to this device by this backend before, else what suits the device."""
    suits, now = devices.auto_execution(), starts[-1]
    for start in reversed(starts[:-1]):
        here = start["device"] == now["device"] and set(start["versions"]) == set(now["versions"])
        if here and "steps_per_call" in start:
            kept = devices.Execution(**{name: start[name] for name in asdict(suits) if name in start})
            if kept != suits:
                progress.say(f"The run keeps {kept}, which it had on this device before.")
            return kept
    return suits


def _calls_of_each_shape(model, sizes):
    """Return the sizes of one full call of training and of validation, and of what the last call of each has left."""

    def full_and_rest(size, batch_size):
        full = batch_size * model.execution.steps_per_call
        return min(size, full + size % full)

    return {
        "train_size": full_and_rest(sizes["train_size"], model.batch_size),
        "val_size": full_and_rest(sizes["val_size"], VALIDATION_BATCH_SIZE),
    }


def _say_what_changed(before, now, precision, progress):
    """Say it where a run goes on with another device or other versions than those of its last start."""
    changed = [f"{before['device']} before, {now['device']} now"] if before["device"] != now["device"] else []
    changed += [
        f"{name} {before['versions'].get(name, 'none')} before, {version} now"
        for name, version in now["versions"].items()
        if before["versions"].get(name) != version
    ]
    if changed:
        progress.say(f"{'; '.join(changed)}: the same state, order and augmentation, the last bits may differ.")
    if None not in (was := before.get("onednn"), on := now.get("onednn")) and was != on:
        progress.say(
            f"TensorFlow used oneDNN before: {was}, now: {on}; the last bits may differ. To keep them, set "
            f"{onednn.VARIABLE}={int(was)} before Python starts."
        )
    if before["device"] != now["device"] and precision != (suits := devices.auto_precision()):
        progress.say(f"The run keeps {precision}, which it began with; {suits} would suit this device better.")


def _where_it_stands(folder):
    epoch = read_saved(folder).epoch
    return (
        f"The checkpoint of epoch {epoch} stands; the same call goes on from it."
        if epoch
        else "No checkpoint was taken yet; the same call begins at epoch 1."
    )


def try_out(model, fit_options):
    """Make the calls of training and of validation that are given, so that they are compiled; put everything back.

    Args:
        model: `TrainingModel`, compiled, with its state in place and a plan laid out.
        fit_options: of `fit`, for a call of each shape that the run will make.

    Raises:
        Exception: the device's own, whatever it cannot do. The model must not be used any more.
    """
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    before = read_arrays(variables)
    model.fit(**fit_options, epochs=1)
    assign_arrays(variables, before, "variables")
