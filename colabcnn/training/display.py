"""The display of a training run: its progress line and the picture of its curves."""

from __future__ import annotations

import contextlib
import math
import time
from typing import TYPE_CHECKING

from colabcnn.network.keras_types import FitCallback, Logs
from colabcnn.store.history import best_of
from colabcnn.training.progress import duration
from colabcnn.training.recorder import Recorder
from colabcnn.viewing.curves import save_curves_if_possible

if TYPE_CHECKING:
    from colabcnn.training.session import Session

CURVES_SECONDS = 30
# Drawing the curves takes at most this share of the time.
CURVES_SHARE = 0.01


class Display(FitCallback):
    """Show a run; placed after the `Recorder`, so that an error of the display loses no record.

    Args:
        session: `Session`.
        recorder: `Recorder`.
    """

    def __init__(self, session: Session, recorder: Recorder):
        super().__init__()
        self._session = session
        self._recorder = recorder
        self._curves_due = float("-inf")
        self._curves_epoch = 0

    def refresh_curves(self) -> None:
        """Draw the curves, in the run's folder and in a notebook, if an epoch has ended since; report a failure."""
        history = self._recorder.history
        if not history["epoch"] or self._curves_epoch == history["epoch"][-1]:
            return
        start = time.monotonic()
        self._curves_epoch = history["epoch"][-1]
        progress, folder = self._session.progress, self._session.folder
        if png := save_curves_if_possible(folder.path, folder.curves_png, progress.info):
            with contextlib.suppress(Exception):  # A front end that is gone, or shows no pictures.
                progress.picture(png)
        now = time.monotonic()
        self._curves_due = now + max(CURVES_SECONDS, (now - start) / CURVES_SHARE)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.refresh_curves()  # A notebook shows the earlier epochs from the start.

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        # At the batch's end the logs would make the host wait for the device at every step.
        self._session.progress.update(lambda: self._line(self._step_text(batch)))

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        self._session.progress.update(lambda: self._line("validating"))

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self._recorder.is_last or time.monotonic() >= self._curves_due:
            self.refresh_curves()
        self._session.progress.update(self._line, milestone=True, last=self._recorder.is_last)

    def _step_text(self, batch):
        # Under JAX several steps may be one batch for Keras.
        steps = math.ceil(self._session.record.train_size / self.model.batch_size)
        return f"step {batch * self.model.steps_a_batch + 1}/{steps}"

    def _line(self, activity=""):
        epochs, history = self.params["epochs"], self._recorder.history
        parts = [f"epoch {self._recorder.epoch}/{epochs}"] + ([activity] if activity else [])
        if activity and self._session.interruption.at is not None:
            parts += ["stops after this epoch (a second interrupt: at once)"]
        if history["epoch"]:
            best, value = best_of(history)
            last = {column: values[-1] for column, values in history.items()}
            parts += [
                f"loss {last['loss']:.4f} accuracy {last['accuracy']:.4f}",
                f"validation {last['val_accuracy']:.4f}",
                f"best {value:.4f} (epoch {best})",
            ]
        if seconds := self._recorder.epoch_seconds():
            epochs_left = epochs - history["epoch"][-1]
            parts += [f"{seconds:.1f} s/epoch", f"{duration(epochs_left * seconds)} to go"]
        if self._session.deadline is not None:
            parts += [f"{max(0.0, self._session.deadline - time.monotonic()) / 3600:.1f} hours left"]
        return " · ".join(parts)
