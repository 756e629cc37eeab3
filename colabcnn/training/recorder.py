"""Record each epoch at its end, in the history and in a checkpoint, and decide whether training continues."""

from __future__ import annotations

import functools
import math
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np

from colabcnn.errors import Error
from colabcnn.network.keras_types import FitCallback, Logs
from colabcnn.network.variables import is_finite, read_arrays
from colabcnn.store.checkpoint import Checkpoint, CheckpointWriter
from colabcnn.store.history import COLUMNS, best_of, write_history
from colabcnn.training.callback_states import early_stopping_ended, report_forgotten, restore_states, save_states
from colabcnn.training.interruption import EPOCH_SECONDS

if TYPE_CHECKING:
    from colabcnn.training.session import Session

# A reserve before the hours have passed.
MARGIN_SECONDS = 5


class Recorder(FitCallback):
    """Record each epoch; placed after all callbacks that can stop training, so that it sees their decision.

    Args:
        session: `Session`.
        history: columns as `empty_history`; a row is appended in place.
        callbacks: the others whose state is kept.
    """

    def __init__(self, session: Session, history: dict, callbacks: tuple):
        super().__init__()
        self.history = history
        self.best: list[np.ndarray] = session.checkpoint.arrays["best"] if session.checkpoint else []
        self.complete = False
        self.reason = ""
        self.epoch = 0
        self._session = session
        self._callbacks = callbacks
        self.writer = CheckpointWriter(session.folder.checkpoints)
        self._epochs_seconds = []
        self._save_seconds = 0.0
        self._checkpoint_at = time.monotonic()
        self._info_once = functools.cache(session.progress.info)

    @property
    def is_last(self) -> bool:
        """Whether training ends with the current epoch."""
        return self.model.stop_training or self.complete

    def epoch_seconds(self) -> float | None:
        """Return the median of this session's recent epochs; None before the first one, which holds the compilation."""
        seconds = self._epochs_seconds[1:][-20:] or self._epochs_seconds
        return statistics.median(seconds) if seconds else None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        # Keras's own callbacks have just reset themselves.
        if checkpoint := self._session.checkpoint:
            restore_states(self._callbacks, checkpoint, self._info_once, continues=True)
        report_forgotten(self._callbacks, self._info_once)
        self._session.interruption.allow(self._epoch_left)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch = epoch + 1
        self._epoch_start = time.monotonic()
        self._learning_rate = float(self.model.optimizer.learning_rate)

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        self._session.interruption.check()
        if self._session.delivery:  # An epoch may take longer than the time between two deliveries.
            self._session.delivery.tick()

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        self.on_train_batch_begin(batch)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        seconds = time.monotonic() - self._epoch_start
        if self._session.delivery:  # Before this epoch's files are written: a delivery has the epochs before.
            self._session.delivery.tick()
        self._refuse_nonfinite({name: float(logs[name]) for name in ("loss", "val_loss")})
        # A callback may put anything into the logs.
        row = {**logs, "epoch": self.epoch, "learning_rate": self._learning_rate, "seconds": round(seconds, 3)}
        for column in COLUMNS:
            self.history[column].append(row[column] if column == "epoch" else float(row[column]))
        self._epochs_seconds.append(seconds)
        if best_of(self.history)[0] == self.epoch:
            self.best = read_arrays(self.model.network.weights)
        self._decide_whether_to_stop()
        self._save(seconds)
        if not self.is_last:  # An interruption from now on concerns the next epoch.
            self._epoch_start = time.monotonic()
            if self._session.interruption.at is not None and seconds > EPOCH_SECONDS:
                raise KeyboardInterrupt

    def _save(self, seconds):
        """Write the history's row and, if one is due, a checkpoint, after an epoch of `seconds`."""
        start = time.monotonic()
        # An interruption does not wait for a long epoch: then all work since the last checkpoint is lost.
        due = start - self._checkpoint_at >= self._session.checkpoint_minutes * 60
        checkpoint = self._checkpoint() if self.is_last or due or seconds > EPOCH_SECONDS else None
        write_history(self._session.folder.history_csv, self.history)
        if checkpoint:
            self.writer.write(checkpoint)
            self._checkpoint_at = time.monotonic()
        self._save_seconds = max(self._save_seconds, time.monotonic() - start)

    def _refuse_nonfinite(self, numbers):
        for name, value in numbers.items():
            if not is_finite(value):
                found = f"is {value}" if isinstance(value, float) else "holds NaN or infinity"
                raise Error(
                    f"{name} {found} in epoch {self.epoch}; expected finite numbers. The run stays at its last "
                    "checkpoint: try another seed, a lower learning rate or float32, in another folder."
                )

    def _decide_whether_to_stop(self):
        session, delivery = self._session, self._session.delivery
        if self.epoch >= self.params["epochs"]:
            self.complete, self.reason = True, f"all {self.epoch} epochs are done"
        elif self.model.stop_training:
            # Another callback, such as a time limit, does not finish the run.
            self.complete = early_stopping_ended(self._callbacks)
            self.reason = f"stopped by {'EarlyStopping' if self.complete else 'a callback'} after epoch {self.epoch}"
        elif delivery and delivery.newer_session:
            self.reason = "a newer session trains this run"  # A shared run contains it: no path.
        elif session.interruption.at is not None:
            self.reason = f"interrupted after epoch {self.epoch}"
        elif session.deadline is not None and time.monotonic() + self._reserve() > session.deadline:
            self.reason = (
                f"the hours have passed after epoch {self.epoch}; {session.same_call} continues the run, in Colab in "
                "a new session or with more hours"
            )
        if self.reason and not self.complete:
            self.model.stop_training = True

    def _reserve(self):
        """Return the seconds that another epoch, its checkpoint and its delivery may take."""
        delivery = self._session.delivery
        seconds = delivery.reserved_seconds if delivery else 0
        return 1.1 * (self.epoch_seconds() or 0.0) + self._save_seconds + seconds + MARGIN_SECONDS

    def _checkpoint(self):
        weights, (states, arrays) = self.model.network.weights, save_states(self._callbacks, self._info_once)
        groups = {
            "model": read_arrays(weights),
            "optimizer": read_arrays(self.model.optimizer.variables),
            "best": self.best,
            "callbacks": arrays,
        }
        # oneDNN's ReLU makes 0 of NaN: with NaN among the weights the loss may be finite.
        try:
            self._refuse_nonfinite(dict(zip((weight.path for weight in weights), groups["model"], strict=True)))
        except Error:
            for column in self.history.values():
                column.pop()
            raise
        metadata = {
            "run": self._session.record.to_json(),
            "history": self.history,
            "callbacks": states,
            "complete": self.complete,
            "reason": self.reason,
        }
        return Checkpoint(self.epoch, "run", groups, metadata)

    def _epoch_left(self):
        """Return the seconds left of the current epoch; infinite until an epoch has been measured."""
        seconds = self.epoch_seconds()
        return math.inf if seconds is None else seconds - (time.monotonic() - self._epoch_start)
