"""The display of a training run: its two lines and the picture of its curves."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from typing import TYPE_CHECKING

from colabcnn.network import devices
from colabcnn.network.keras_types import FitCallback, Logs
from colabcnn.store.history import best_of
from colabcnn.training.progress import roughly
from colabcnn.training.recorder import Recorder
from colabcnn.viewing.curves import save_curves_if_possible
from colabcnn.viewing.live import LiveCurves

if TYPE_CHECKING:
    from colabcnn.training.session import Session

# A notebook's curves are refreshed at most this often, which takes milliseconds.
SHOW_SECONDS = 2
PICTURE_SECONDS = 30
# Drawing the picture during a run takes at most this share of the time: with the first and the last one, below 1 %.
PICTURE_SHARE = 0.005


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
        self._curves = LiveCurves(session.folder.path, session.progress.show_html)
        self._shown_at = float("-inf")
        self._picture_due = time.monotonic() + PICTURE_SECONDS
        self._picture_epoch = 0

    def refresh_picture(self) -> None:
        """Draw the curves into the run's folder if an epoch has ended since; report a failure."""
        history = self._recorder.history
        if not history["epoch"] or self._picture_epoch == history["epoch"][-1]:
            return
        start = time.monotonic()
        self._picture_epoch = history["epoch"][-1]
        progress, folder = self._session.progress, self._session.folder
        if png := save_curves_if_possible(folder.path, folder.curves_png, progress.info):
            with contextlib.suppress(Exception):  # A front end that is gone, or shows no pictures.
                self._curves.show_picture(png)
        now = time.monotonic()
        self._picture_due = now + max(PICTURE_SECONDS, (now - start) / PICTURE_SHARE)

    def show_curves(self) -> None:
        """Refresh the curves in a notebook."""
        if self._session.progress.in_notebook:
            with contextlib.suppress(Exception):  # As above.
                self._curves.show(self._recorder.history, self._session.record)
            self._shown_at = time.monotonic()

    def on_train_begin(self, logs: Logs | None = None) -> None:
        # A notebook shows the earlier epochs from the start.
        self.refresh_picture()
        self.show_curves()

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        # At the batch's end JAX's logs would make the host wait for the device at every step.
        self._session.progress.update(lambda: self._lines(self._step_text(batch), self._so_far(batch)))

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        self._session.progress.update(lambda: self._lines("validating"))

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        now, is_last = time.monotonic(), self._recorder.is_last
        if is_last or now >= self._shown_at + SHOW_SECONDS:
            self.show_curves()
        if is_last or now >= self._picture_due:
            self.refresh_picture()
        self._session.progress.update(self._lines, milestone=True, last=self._recorder.is_last)

    def _step_text(self, batch):
        # Under JAX several steps may be one batch for Keras.
        steps = math.ceil(self._session.record.train_size / self.model.batch_size)
        return f"step {batch * self.model.steps_per_batch + 1}/{steps}"

    def _so_far(self, batch):
        """Return the current epoch's means over the steps until now. Under JAX the model lacks them before its end."""
        if not batch or devices.backend() != "tensorflow":
            return ""
        with contextlib.suppress(Exception):  # Figures to look at are no reason to stop.
            means = self.model.get_metrics_result()
            return f"now loss {float(means['loss']):.3f}, accuracy {float(means['accuracy']):.3f}"
        return ""

    def _lines(self, activity="", so_far=""):
        """Return the progress and the time left; below it figures of the last complete epoch and of this one."""
        epochs, history, record = self.params["epochs"], self._recorder.history, self._session.record
        parts = [f"epoch {self._recorder.epoch}/{epochs}"] + ([activity] if activity else [])
        if activity and self._session.interruption.at is not None:
            parts += ["stops soon (stop again: at once)"]
        elif seconds := self._recorder.epoch_seconds() or statistics.median(history["seconds"][-20:] or [0]):
            left = (epochs - (history["epoch"][-1] if history["epoch"] else 0)) * seconds
            to_deadline = math.inf if self._session.deadline is None else self._session.deadline - time.monotonic()
            parts += [f"{roughly(left)} left"] + (
                [f"session ends in {roughly(to_deadline)}"] if to_deadline < left else []
            )
            # Last, since a narrow terminal cuts the line.
            parts += [f"{(record.train_size + record.val_size) / seconds:,.0f} images/s"]
        second = [so_far] if so_far else []
        if history["epoch"]:
            best, value = best_of(history)
            last = {column: values[-1] for column, values in history.items()}
            words = f"validation {last['val_accuracy']:.4f}, best {value:.4f} ({best})"
            if not so_far:  # For both, 80 columns are too narrow.
                words = f"loss {last['loss']:.4f}, accuracy {last['accuracy']:.4f}, {words}"
            second.insert(0, f"epoch {last['epoch']}: {words}")
        return "\n".join(filter(None, (" · ".join(parts), "; ".join(second))))
