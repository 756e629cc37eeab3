"""The trainings of a measurement: with `run`'s execution, in plain steps, and interrupted and resumed."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colabcnn.errors import Error, cause_of
from colabcnn.experiments.experiment import Experiment
from colabcnn.measuring.killed_run import train_until_exception, train_until_killed
from colabcnn.network import devices
from colabcnn.network.keras_types import FitCallback
from colabcnn.store.measurements import InterruptedRun, Training
from colabcnn.store.run_folder import open_checkpoint, open_run
from colabcnn.store.run_record import RunRecord
from colabcnn.training.progress import ProgressLine
from colabcnn.training.run import run

# The seconds that a process needs beside its training, and its timeout as a multiple of the expected time.
PROCESS_SECONDS, PATIENCE = 20, 3


@dataclass(frozen=True)
class Setting:
    """The settings that all trainings of a measurement share.

    Args:
        experiment: `Experiment`.
        data: as `run` takes it.
        train_size, val_size: numbers of images.
        epochs: their number, from 2: the first one may hold the compilation.
        folder: for the runs' folders.
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
        """Return the options for `run`, as JSON types."""
        sizes = {"train_size": self.train_size, "val_size": self.val_size, "epochs": self.epochs}
        return {"data": self.data, **sizes, "allow_long": True, "quiet": True}


class _Watch(FitCallback):
    """Show the training in one line, and record the end of its first epoch."""

    def __init__(self, progress, name):
        super().__init__()
        self.first_epoch_end = None
        self._progress, self._name, self._epoch = progress, name, 0

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch + 1

    def on_train_batch_begin(self, batch, logs=None):
        steps = self.params["steps"]
        self._progress.update(lambda: f"{self._in_words()}, call {batch + 1} of {steps}")

    def on_test_batch_begin(self, batch, logs=None):
        self._progress.update(lambda: f"{self._in_words()}, validating")

    def on_epoch_end(self, epoch, logs=None):
        self.first_epoch_end = self.first_epoch_end or time.monotonic()
        self._progress.update(lambda: f"{self._in_words()} done", milestone=True, last=True)

    def _in_words(self):
        return f"{self._name}: epoch {self._epoch} of {self.params['epochs']}"


def train(setting: Setting, name: str) -> Training:
    """Train with `run` and return a `Training`.

    Args:
        setting: `Setting`.
        name: for the run's folder and the progress line.
    """
    watch, start_time = _Watch(setting.progress, name), time.monotonic()
    result = run(setting.experiment, setting.folder / name, callbacks=[watch], **setting.options())
    start = last_record(setting, name).starts[-1]
    if watch.first_epoch_end is None:
        raise Error(f"the run in {setting.folder / name} trained no epoch.")
    assert start.execution  # It is recorded before the first epoch.
    columns = ("seconds", "loss", "accuracy", "val_loss", "val_accuracy")
    return Training(
        steps=start.execution,
        refused=as_line(start.refused or "", 400),
        start_seconds=round(watch.first_epoch_end - start_time, 3),
        **{column: tuple(result.history[column]) for column in columns},
    )


def train_plain(setting: Setting) -> tuple[Training | None, str]:
    """Return `(training, failed)`: the training in plain steps, or None and the reason for its failure."""
    try:
        with devices.execution_given(devices.plain_execution()):
            return train(setting, "plain"), ""
    except Exception as error:  # As below.
        return None, _reason(error)


def train_interrupted(setting: Setting, auto: Training) -> tuple[Training | None, InterruptedRun]:
    """Interrupt a run in epoch 2 and resume it; return `(training, InterruptedRun)`, the training None if it failed.

    Args:
        setting: `Setting`.
        auto: the uninterrupted `Training`, which this one should equal.
    """
    options, why_not = {**setting.options(), "checkpoint_minutes": 0}, ""
    expected = PROCESS_SECONDS + auto.start_seconds + auto.epoch_seconds()
    setting.progress.info(f"Another process trains until it is killed. This takes about {expected:.0f} s.")
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
    except Exception as error:  # The measurement reports every failure of the device.
        resumed, failed, first_epoch, same = None, _reason(error), 0, False
    by = "exception" if why_not else "SIGKILL"
    return resumed, InterruptedRun(by, as_line(why_not, 400), first_epoch=first_epoch, bit_for_bit=same, failed=failed)


def _bit_for_bit(run_dir, other_dir):
    """Return whether two runs have the same weights, optimizer and history, except the seconds."""
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
    return as_line(cause_of(error), 400)


def as_line(text: str, most: int) -> str:
    """Return a text as one printable line of at most `most` characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:most]
