"""What a run that somebody else handed on must be like, before anything of it is believed or shown."""

import math
import re

from colabcnn.errors import Error
from colabcnn.experiments.catalog import find_experiment
from colabcnn.experiments.experiment import PRECISIONS, Experiment
from colabcnn.store.checkpoint import read_checkpoint
from colabcnn.store.checkpoint_files import checkpoint_files, epoch_of
from colabcnn.store.history import COLUMNS, read_history
from colabcnn.store.run_record import fingerprint

# CIFAR-10 has 60,000 images; of drawn ones a million can be asked for.
_MAX_TRAIN_SIZE, _MAX_VAL_SIZE, _MAX_LAYERS = 1_000_000, 60_000, 100
# Devices and times stand in tables and on terminals: nothing that Markdown or a terminal would act upon.
_PLAIN = re.compile(r"[\w .,;:()/@+-]{1,200}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_run(folder):
    """See that a folder holds what this library writes, each part agreeing with the others.

    Args:
        folder: `RunFolder` with `run.json`, `history.csv`, `model.keras` and, if there, one checkpoint.

    Returns:
        What `run.json` holds.

    Raises:
        Error: says which file is not what it should be.
    """
    run = folder.read_run()
    try:
        _check_settings(run, folder.model_keras.stat().st_size)
    except Error as error:
        raise Error(f"the archive's run.json: {error}") from None
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError, OverflowError):
        raise Error("the archive's run.json does not describe a run; it was not made by `export`.") from None
    history = read_history(folder.history_csv)
    _check_history(history)
    for path in checkpoint_files(folder.checkpoints):
        _check_checkpoint(path, run, history, folder.model_keras.stat().st_size)
    return run


def _check_settings(run, model_bytes):
    experiment = find_experiment(Experiment.from_settings(run["experiment"]))
    limits = {"seed": 2**63 - 1, "epochs": 2**63 - 1, "train_size": _MAX_TRAIN_SIZE}
    limits |= {"val_size": _MAX_VAL_SIZE, "holdout": _MAX_VAL_SIZE}
    agrees = (
        len(experiment.filters) * len(experiment.kernel_sizes) <= _MAX_LAYERS
        # Its weights lie in model.keras as they are: a network that is larger than that is none that was trained.
        and 4 * experiment.parameter_count() <= model_bytes
        and all(_is_count(run[field], most) for field, most in limits.items())
        # Where the rate falls to the last epoch, their number is the experiment's, too.
        and run["experiment"].get("epochs", run["epochs"]) == run["epochs"]
        and run["data"] in ("cifar10", "synthetic")
        and run["precision"] in PRECISIONS
        and _SHA256.fullmatch(run["data_sha256"])
        and all(_PLAIN.fullmatch(start["device"]) and _PLAIN.fullmatch(start["time"]) for start in run["starts"])
        and all(_is_count(start["first_epoch"], limits["epochs"]) for start in run["starts"])
    )
    if not agrees:
        raise ValueError


def _is_count(value, most):
    return type(value) is int and 0 <= value <= most


def _check_history(history):
    numbers = [value for column in history.values() for value in column]
    if not numbers or history["epoch"] != list(range(1, len(history["epoch"]) + 1)):
        raise Error("the archive's history.csv is not that of a run: expected epochs counted from 1.")
    accuracies = history["accuracy"] + history["val_accuracy"]
    if not all(map(math.isfinite, numbers)) or not all(0 <= value <= 1 for value in accuracies):
        raise Error("the archive's history.csv is not that of a run: expected finite numbers, accuracies from 0 to 1.")


def _check_checkpoint(path, run, history, model_bytes):
    try:
        checkpoint = read_checkpoint(path)
        _check_settings(checkpoint.metadata["run"], model_bytes)
        metadata, groups = checkpoint.metadata, {"model", "optimizer", "best"}
        agrees = (
            checkpoint.epoch == epoch_of(path) == len(history["epoch"])
            and fingerprint(metadata["run"]) == fingerprint(run)
            and metadata["history"] == {column: history[column] for column in COLUMNS}
            and groups <= set(checkpoint.arrays) <= groups | {"callbacks"}
            and isinstance(metadata["complete"], bool)
            and _is_text(metadata["reason"])
            and isinstance(metadata["callbacks"], list)
        )
    except (AttributeError, Error, KeyError, OverflowError, RecursionError, TypeError, ValueError):
        agrees = False
    if not agrees:
        raise Error(f"the archive's {path.name} does not agree with its run.json and history.csv; it is altered.")


def _is_text(value):
    return isinstance(value, str) and value.isprintable() and len(value) <= 1000
