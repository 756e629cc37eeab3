"""The trainings of a measurement: by `run`, in plain steps, and one that is interrupted and resumed."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colabcnn.errors import Error
from colabcnn.experiments.experiment import Experiment
from colabcnn.measuring.killed_run import train_until_exception, train_until_killed
from colabcnn.network import devices
from colabcnn.network.keras_types import FitCallback
from colabcnn.store.measurements import Interruption, Steps, Training
from colabcnn.store.run_folder import open_checkpoint, open_run
from colabcnn.store.run_record import RunRecord
from colabcnn.training.progress import ProgressLine
from colabcnn.training.run import run

# What a process needs beside its training, and how many times as long as expected it may take.
PROCESS_SECONDS, PATIENCE = 20, 3


@dataclass(frozen=True)
class Setting:
    """What all trainings of a measurement share.

    Args:
        experiment: `Experiment`.
        data: as `run` takes it.
        train_size, val_size: how many images.
        epochs: how many, from 2: the first one may hold the compilation.
        folder: where the runs' folders are made.
        progress: `ProgressLine`.
    """

    experiment: Experiment
    data: str
    train_size: int
    val_size: int
    epochs: int
    folder: Path
    progress: ProgressLine

    def options(self) -> dict[str, Any]:
        """Return what `run` is given, of types that JSON has."""
        sizes = {"train_size": self.train_size, "val_size": self.val_size, "epochs": self.epochs}
        return {"data": self.data, **sizes, "allow_long": True, "quiet": True}


class _Watch(FitCallback):
    """Show in one line what is trained, and note when the first epoch ended."""

    def __init__(self, progress, doing):
        super().__init__()
        self.first_epoch_ended = None
        self._progress, self._doing, self._epoch = progress, doing, 0

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch + 1

    def on_train_batch_begin(self, batch, logs=None):
        steps = self.params["steps"]
        self._progress.update(lambda: f"{self._in_words()}, call {batch + 1} of {steps}")

    def on_test_batch_begin(self, batch, logs=None):
        self._progress.update(lambda: f"{self._in_words()}, validating")

    def on_epoch_end(self, epoch, logs=None):
        self.first_epoch_ended = self.first_epoch_ended or time.monotonic()
        self._progress.update(lambda: f"{self._in_words()} done", milestone=True, last=True)

    def _in_words(self):
        return f"{self._doing}: epoch {self._epoch} of {self.params['epochs']}"


def train(setting: Setting, name: str) -> Training:
    """Train by `run` and return a `Training`.

    Args:
        setting: `Setting`.
        name: of the run's folder, and what the line shows.
    """
    watch, began = _Watch(setting.progress, name), time.monotonic()
    result = run(setting.experiment, setting.folder / name, callbacks=[watch], **setting.options())
    start = last_record(setting, name).starts[-1]
    if watch.first_epoch_ended is None:
        raise Error(f"the run in {setting.folder / name} trained no epoch.")
    columns = ("seconds", "loss", "accuracy", "val_loss", "val_accuracy")
    return Training(
        steps=Steps(**(start.execution or {})),
        refused=as_line(start.refused or "", 400),
        start_seconds=round(watch.first_epoch_ended - began, 3),
        **{column: list(result.history[column]) for column in columns},
    )


def train_plain(setting: Setting) -> tuple[Training | None, str]:
    """Return `(training, failed)`: the same in plain steps, or None and why that failed."""
    try:
        with devices.execution_given(devices.plain_execution()):
            return train(setting, "plain"), ""
    except Exception as error:  # As below.
        return None, _reason(error)


def train_interrupted(setting: Setting, auto: Training) -> tuple[Training | None, Interruption]:
    """Return `(training, Interruption)` of a run that is ended in epoch 2 and resumed; the training None if it failed.

    Args:
        setting: `Setting`.
        auto: the `Training` that was not interrupted, which this one should equal.
    """
    options, why_not = {**setting.options(), "checkpoint_minutes": 0}, ""
    expected = PROCESS_SECONDS + auto.start_seconds + auto.epoch_seconds()
    setting.progress.info(f"Another process trains until it is killed. Here nothing moves for about {expected:.0f} s.")
    try:
        name = "resumed"
        why_not = train_until_killed(setting.experiment, setting.folder / name, options, seconds=PATIENCE * expected)
        if why_not:
            name = "resumed-here"
            setting.progress.info(f"That is not possible here: {why_not}. An exception ends the run instead.")
            train_until_exception(setting.experiment, setting.folder / name, options)
        resumed, failed = train(setting, name), ""
        first_epoch = last_record(setting, name).starts[-1].first_epoch
        same = _bit_for_bit(setting.folder / "auto", setting.folder / name)
    except Exception as error:  # What a device cannot do is what this is to find out.
        resumed, failed, first_epoch, same = None, _reason(error), 0, False
    by = "exception" if why_not else "SIGKILL"
    return resumed, Interruption(by, as_line(why_not, 400), first_epoch=first_epoch, bit_for_bit=same, failed=failed)


def _bit_for_bit(run_dir, other_dir):
    """Return whether two runs have the same weights, optimizer and history but for seconds."""
    one, other = (open_checkpoint(path)[2] for path in (run_dir, other_dir))
    histories = [{**checkpoint.metadata["history"], "seconds": None} for checkpoint in (one, other)]
    return histories[0] == histories[1] and all(
        array.tobytes() == counterpart.tobytes()
        for group in ("model", "optimizer")
        for array, counterpart in zip(one.arrays[group], other.arrays[group], strict=True)
    )


def last_record(setting: Setting, name: str) -> RunRecord:
    """Return the `RunRecord` of a training."""
    return open_run(setting.folder / name)[1]


def _reason(error):
    return as_line(str(error).strip() or type(error).__name__, 400)


def as_line(text: str, most: int) -> str:
    """Return a text as one printable line of at most so many characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:most]
