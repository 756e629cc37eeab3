"""What happens around each epoch of a run: the history's row, the checkpoint, the picture, the progress line."""

import math
import statistics
import time

import keras

from colabcnn.errors import Error
from colabcnn.network.variables import read_arrays
from colabcnn.store.checkpoint import Checkpoint, CheckpointWriter
from colabcnn.store.history import COLUMNS, best_epoch, write_history
from colabcnn.training.callback_states import early_stopping_ended, restore_states, save_states
from colabcnn.training.interruption import EPOCH_SECONDS
from colabcnn.training.progress import duration
from colabcnn.viewing.curves import save_curves

CURVES_SECONDS = 30
# Of the time, at most this much goes into drawing them.
CURVES_SHARE = 0.01
# What bringing 48 MB to Drive is taken to need while no delivery has shown it.
UNKNOWN_DELIVERY_SECONDS = 15
# What is not foreseen before the hours are up.
MARGIN_SECONDS = 5


class Recorder(keras.callbacks.Callback):
    """Keep a run's folder up to date; stands last among the callbacks, so that it sees what the others decided.

    Args:
        folder: `RunFolder`.
        run: what `run.json` holds; goes into each checkpoint.
        history: columns as `empty_history`; a row is appended in place.
        checkpoint: `Checkpoint` that the run goes on from, or None.
        callbacks: the other callbacks, whose state is kept.
        checkpoint_minutes: at least so long between two checkpoints; 0 takes one every epoch.
        deadline: `time.monotonic()` at which the hours are used up, or None.
        delivery: `Delivery`, or None.
        interruption: `Interruption`.
        progress: `ProgressLine`.
    """

    def __init__(
        self,
        folder,
        run,
        history,
        checkpoint,
        callbacks,
        *,
        checkpoint_minutes,
        deadline,
        delivery,
        interruption,
        progress,
    ):
        super().__init__()
        self.folder = folder
        self.run = run
        self.history = history
        self.best = checkpoint.arrays["best"] if checkpoint else None
        self.callbacks = callbacks
        self.complete = False
        self.reason = ""
        self._checkpoint = checkpoint
        self._writer = CheckpointWriter(folder.checkpoints)
        self._pause = checkpoint_minutes * 60
        self._deadline = deadline
        self._delivery = delivery
        self._interruption = interruption
        self._progress = progress
        self._session_seconds = []
        self._save_seconds = 0.0
        self._checkpoint_at = time.monotonic()
        self._curves_due = float("-inf")
        self._curves_epoch = 0

    def on_train_begin(self, logs=None):
        # Keras's own callbacks have just reset themselves.
        if self._checkpoint:
            states, arrays = self._checkpoint.metadata["callbacks"], self._checkpoint.arrays.get("callbacks", [])
            for name in restore_states(self.callbacks, states, arrays, goes_on=True):
                self._progress.say(f"{name} was not among the run's callbacks before; it begins anew.")
        self.refresh_curves()  # What there is already stands in the notebook from the start.
        self._interruption.allow(self._epoch_left)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch + 1
        self._began = time.monotonic()
        self._learning_rate = float(self.model.optimizer.learning_rate)

    def on_train_batch_begin(self, batch, logs=None):
        self._interruption.check()
        # Not the end of the batch: its logs would make the host wait for the device at every step.
        self._progress.update(lambda: self._line(self._step_in_words(batch)))

    def on_test_batch_begin(self, batch, logs=None):
        self._interruption.check()
        self._progress.update(lambda: self._line("validating"))

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.monotonic() - self._began
        self._refuse_nonfinite(logs)
        row = {"epoch": self._epoch, "learning_rate": self._learning_rate, "seconds": round(seconds, 3), **logs}
        for column in COLUMNS:
            self.history[column].append(row[column] if column == "epoch" else float(row[column]))
        self._session_seconds.append(seconds)
        network = self.model.network
        if best_epoch(self.history) == self._epoch:
            self.best = read_arrays(network.weights)
        self._decide_whether_to_stop()
        self._save(network)
        self._progress.update(self._line, milestone=True, last=self.model.stop_training or self.complete)

    def refresh_curves(self):
        """Draw the run's picture, in its folder and in a notebook, if an epoch has come since."""
        if not self.history["epoch"] or self._curves_epoch == self.history["epoch"][-1]:
            return
        began = time.monotonic()
        self._progress.picture(save_curves(self.folder.path, self.folder.curves_png))
        now = time.monotonic()
        self._curves_epoch = self.history["epoch"][-1]
        self._curves_due = now + max(CURVES_SECONDS, (now - began) / CURVES_SHARE)

    def wait(self):
        """Wait until the newest checkpoint is on disk.

        Raises:
            OSError: the disk's own; the older ones stand.
        """
        self._writer.wait()

    def _refuse_nonfinite(self, logs):
        for name in ("loss", "val_loss"):
            if not math.isfinite(logs[name]):
                raise Error(
                    f"{name} is {logs[name]} in epoch {self._epoch}; expected a finite number. The run stays at its "
                    "last checkpoint: try another seed, a lower learning rate or float32, in another folder."
                )

    def _decide_whether_to_stop(self):
        if self._delivery:
            self._delivery.tick()
        if self.model.stop_training:
            # Another callback's reason, such as a time limit, does not make the run a finished one.
            self.complete = early_stopping_ended(self.callbacks)
            self.reason = f"stopped by {'EarlyStopping' if self.complete else 'a callback'} after epoch {self._epoch}"
        elif self._epoch >= self.params["epochs"]:
            self.complete, self.reason = True, f"all {self._epoch} epochs are done"
        elif self._delivery and self._delivery.newer_session:
            self.reason = f"a newer session trains this run in {self._delivery.drive}"
            self.model.stop_training = True
        elif self._interruption.at is not None:
            self.reason = f"interrupted after epoch {self._epoch}"
            self.model.stop_training = True
        elif self._deadline is not None and time.monotonic() + self._reserve() > self._deadline:
            self.reason = f"the hours are used up after epoch {self._epoch}"
            self.model.stop_training = True

    def _reserve(self):
        """Return the seconds that another epoch, its checkpoint and bringing that to Drive may take."""
        delivery = 0 if self._delivery is None else 2 * (self._delivery.seconds or UNKNOWN_DELIVERY_SECONDS)
        return 1.1 * self._epoch_seconds() + self._save_seconds + delivery + MARGIN_SECONDS

    def _save(self, network):
        began = time.monotonic()
        self._save_files(network)
        self._save_seconds = max(self._save_seconds, time.monotonic() - began)

    def _save_files(self, network):
        last, now = self.model.stop_training or self.complete, time.monotonic()
        write_history(self.folder.history_csv, self.history)
        if last or now >= self._curves_due:
            self.refresh_curves()
        # An epoch that an interruption does not let end is lost back to the last checkpoint.
        if last or now - self._checkpoint_at >= self._pause or self._session_seconds[-1] > EPOCH_SECONDS:
            states, arrays = save_states(self.callbacks)
            groups = {
                "model": read_arrays(network.weights),
                "optimizer": read_arrays(self.model.optimizer.variables),
                "best": self.best,
                "callbacks": arrays,
            }
            metadata = {
                "run": self.run,
                "history": self.history,
                "callbacks": states,
                "complete": self.complete,
                "reason": self.reason,
            }
            self._writer.write(Checkpoint(self._epoch, groups, metadata))
            self._checkpoint_at = time.monotonic()

    def _epoch_left(self):
        """Return the seconds that the epoch in hand will still take; infinite while none has shown it."""
        if not self._session_seconds:
            return math.inf
        return self._epoch_seconds() - (time.monotonic() - self._began)

    def _epoch_seconds(self):
        """Return the median of this session's recent epochs; its first one holds the compilation too."""
        return statistics.median(self._session_seconds[1:][-20:] or self._session_seconds)

    def _step_in_words(self, batch):
        # Under JAX several steps may be one batch for Keras.
        steps = math.ceil(self.run["train_size"] / self.model.batch_size)
        return f"step {batch * self.model.steps_a_batch + 1}/{steps}"

    def _line(self, doing=""):
        parts = [f"epoch {self._epoch}/{self.params['epochs']}"] + ([doing] if doing else [])
        if doing and self._interruption.at is not None:
            parts += ["stops after this epoch (again: at once)"]
        if self.history["epoch"]:
            best = best_epoch(self.history)
            last = {column: values[-1] for column, values in self.history.items()}
            parts += [
                f"loss {last['loss']:.4f} accuracy {last['accuracy']:.4f}",
                f"validation {last['val_accuracy']:.4f}",
                f"best {self.history['val_accuracy'][best - 1]:.4f} (epoch {best})",
            ]
        if self._session_seconds:
            left = self.params["epochs"] - self.history["epoch"][-1]
            parts += [f"{self._epoch_seconds():.1f} s/epoch", f"{duration(left * self._epoch_seconds())} to go"]
        if self._deadline is not None:
            parts += [f"{max(0.0, self._deadline - time.monotonic()) / 3600:.1f} hours left"]
        return " · ".join(parts)
