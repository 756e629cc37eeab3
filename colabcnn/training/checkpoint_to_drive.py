"""A Keras callback with which any `fit` resumes where it was stopped."""

import contextlib
import hashlib
import math
import sys
import time
from pathlib import Path

import keras

from colabcnn.drive.delivery import FINISH_SECONDS, Delivery
from colabcnn.errors import Error
from colabcnn.network.devices import device_name, versions
from colabcnn.network.keras_types import FitCallback, Logs
from colabcnn.network.variables import assign_arrays, read_arrays
from colabcnn.store.checkpoint import Checkpoint, CheckpointWriter, newest_checkpoint
from colabcnn.store.files import move_aside
from colabcnn.store.lock import Lock
from colabcnn.training.callback_states import early_stopping_ended, restore_states, save_states
from colabcnn.training.resume import fetch_from_drive

_training = {}  # By local folder: the callback that has locked it in this process.


class CheckpointToDrive(FitCallback):
    """Checkpoint a `fit` to Google Drive, and resume it when the same cell runs again.

    ```python
    model.compile(...)
    model.fit(images, labels, epochs=100, callbacks=[CheckpointToDrive("/content/drive/MyDrive/my-run")])
    ```

    The same code, run again on this machine or another, resumes after the newest checkpoint that verifies. When all
    epochs are done, or EarlyStopping has ended training, it only restores the final weights. One folder is one run:
    use another folder for another run.

    What it guarantees: a checkpoint is one file with its SHA-256 in its name. A truncated, altered or missing one is
    skipped, with the reason, and the one before is used. A resume restores the model's weights, the states of its
    random layers, the optimizer with its learning rate, the history that `fit` returns, and the state of Keras's
    EarlyStopping, ReduceLROnPlateau, ModelCheckpoint and SwapEMAWeights. This callback may have any place in the list.
    Training never waits for Drive: another process copies the files. A loss that is not finite replaces no checkpoint.

    What it cannot do: restore the order of your data. `fit(x, y)` shuffles with a global generator, which a new process
    seeds again. A resumed run is then as good as an uninterrupted one, but not identical. It is identical if an epoch's
    order depends only on the epoch's number, as with `shuffle=False`. Your own callbacks must keep their state
    themselves. Checkpoints are taken at the end of epochs: an interrupted epoch is trained again. The runtime cannot
    see whether Drive has uploaded the files that it accepted.

    Args:
        folder: where it delivers, such as a folder below `/content/drive/MyDrive`.
        local_folder: where checkpoints are written first; by default a folder in `~/.colabcnn`, named after `folder`.
        checkpoint_minutes: least number of minutes between two local checkpoints; 0 takes one every epoch. The last
            epoch always takes one.
        drive_minutes: minutes between two deliveries; the end always delivers.

    Raises:
        Error: when training begins: another process trains in `local_folder`; the checkpoint is another model's;
            `folder` cannot be read while there is no local checkpoint. During training: the local disk failed.
    """

    model: keras.Model
    # Set when training begins:
    _lock: Lock
    _delivery: Delivery
    _writer: CheckpointWriter

    def __init__(
        self,
        folder: str | Path,
        *,
        local_folder: str | Path | None = None,
        checkpoint_minutes: float = 1,
        drive_minutes: float = 10,
    ):
        super().__init__()
        for name, value in {"checkpoint_minutes": checkpoint_minutes, "drive_minutes": drive_minutes}.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
                raise Error(f"{name} is {value!r}; expected a number from 0.")
        self.folder = Path(folder).expanduser().absolute()
        self.local_folder = Path(local_folder or _default_local_folder(self.folder)).expanduser().absolute()
        if self.local_folder == self.folder:
            raise Error(f"local_folder is {self.folder}, which folder is too; expected a folder on the local disk.")
        self.drive_minutes = drive_minutes
        self._pause = checkpoint_minutes * 60
        self._other_callbacks = []

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        # This callback must be last in the list, to see what the others decided and to restore what they reset. It can
        # only find the list in Keras's calling frame. The list is replaced, since Keras is iterating over it.
        frame = sys._getframe(1)
        while frame and not isinstance(frame.f_locals.get("self"), keras.callbacks.CallbackList):
            frame = frame.f_back
        if frame:
            calling = frame.f_locals["self"]
            self._other_callbacks = [callback for callback in calling.callbacks if callback is not self]
            calling.callbacks = [*self._other_callbacks, self]

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if not self.model.built:
            raise Error("the model has no weights yet; build it with keras.Input(shape), or call it on one batch.")
        if not self.model.optimizer.built:  # TensorFlow would build it in the first step, after the restore.
            self.model.optimizer.build(self.model.trainable_variables)
        with self._disk_errors_readable():
            self._begin()
            try:
                checkpoint = self._find_newest()
                self._restore(checkpoint)
            except BaseException:
                self._end()
                raise
        self._epoch = checkpoint.epoch if checkpoint else 0
        self._checkpoint_at = time.monotonic()
        self._delivery.begin(self._fingerprint())

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch + 1
        ended_early = self.model.stop_training and early_stopping_ended(self._other_callbacks)
        complete = ended_early or self._epoch >= self.params["epochs"]
        last = complete or self.model.stop_training
        self._delivery.tick()
        if self._delivery.newer_session and not complete:
            self._info(f"A newer session trains this run in {self.folder}: this one stops.")
            self.model.stop_training = True
        elif not all(math.isfinite(value) for name, value in (logs or {}).items() if name in ("loss", "val_loss")):
            if not self._diverged:
                self._info(f"The loss is not finite in epoch {self._epoch}: no more checkpoints, the last one is kept.")
            self._diverged = True
        elif not self._diverged and (last or time.monotonic() - self._checkpoint_at >= self._pause):
            with self._disk_errors_readable():
                self._writer.write(self._checkpoint(complete))
            self._checkpoint_at = time.monotonic()

    def on_train_end(self, logs: Logs | None = None) -> None:
        try:
            with self._disk_errors_readable():
                self._writer.wait()
        finally:
            self._delivery.finish(FINISH_SECONDS)
            self._end()

    def _begin(self):
        # An interrupted `fit` of this process did not call `on_train_end`.
        interrupted = _training.pop(self.local_folder, None)
        if interrupted:
            interrupted._end()
        self.local_folder.mkdir(parents=True, exist_ok=True)
        self._lock = Lock(self.local_folder)
        _training[self.local_folder] = self
        self._writer = CheckpointWriter(self.local_folder / "checkpoints")
        self._diverged = False
        self._delivery = Delivery(self.local_folder, self.folder, minutes=self.drive_minutes, info=self._info)
        self._info(
            f"Checkpoints in {self.local_folder}, delivered to {self.folder} every {self.drive_minutes:g} minutes."
        )

    def _end(self):
        self.model._initial_epoch = None
        self._delivery.close()
        self._lock.release()
        _training.pop(self.local_folder, None)
        with contextlib.suppress(OSError):  # `on_train_end` has reported it, or the `fit` was interrupted.
            self._writer.wait()

    @contextlib.contextmanager
    def _disk_errors_readable(self):
        try:
            yield
        except OSError as error:
            raise Error(
                f"{error.filename or self.local_folder}: {error.strerror or error}. The run stays at its last "
                "checkpoint; make room or give another local_folder, and call `fit` again."
            ) from error

    def _fingerprint(self):
        """Return a digest that identifies the model's runs."""
        return hashlib.sha256(repr([tuple(variable.shape) for variable in self.model.variables]).encode()).hexdigest()

    def _find_newest(self):
        """Return the newest `Checkpoint` that verifies, here or on Drive, or None; move unusable ones aside."""
        checkpoint, skipped = newest_checkpoint(self.local_folder / "checkpoints")
        epoch = checkpoint.epoch if checkpoint else 0
        fetched = fetch_from_drive(self._delivery, epoch, self._info, run=self._fingerprint())["fetched"]
        self._delivery.take(fetched)
        if fetched:
            checkpoint, skipped = newest_checkpoint(self.local_folder / "checkpoints")
        for reason in skipped.values():
            self._info(f"Skipped: {reason}")
        if skipped:
            self._info(f"Unusable files are kept in {move_aside(self.local_folder, skipped)}.")
        return checkpoint

    def _checkpoint(self, complete):
        states, arrays = save_states(self._other_callbacks)
        groups = {
            "model": read_arrays(self.model.variables),
            "optimizer": read_arrays(self.model.optimizer.variables),
            "callbacks": arrays,
        }
        metadata = {"epochs": self.params["epochs"], "complete": complete, "callbacks": states}
        return Checkpoint(self._epoch, "fit", groups, metadata | {"versions": versions(), "device": device_name()})

    def _restore(self, checkpoint):
        self.model._initial_epoch = None
        if checkpoint is None:
            return
        if checkpoint.kind != "fit":
            raise Error(f"{self.local_folder} holds a run of `colabcnn.run`; use another local_folder and folder.")
        assign_arrays(self.model.variables, checkpoint.arrays["model"], "weights")
        assign_arrays(self.model.optimizer.variables, checkpoint.arrays["optimizer"], "optimizer variables")
        epochs = self.params["epochs"]
        finished = checkpoint.metadata["complete"] and epochs <= checkpoint.metadata["epochs"]
        states, arrays = checkpoint.metadata["callbacks"], checkpoint.arrays.get("callbacks", [])
        for name in restore_states(self._other_callbacks, states, arrays, continues=not finished):
            self._info(f"{name} was not among the callbacks before; it keeps its initial state.")
        # Keras's own BackupAndRestore does the same.
        self.model._initial_epoch = epochs if finished else checkpoint.epoch
        epochs_left = max(0, epochs - self.model._initial_epoch)
        self._info(f"Epoch {checkpoint.epoch} of {epochs} is restored; {epochs_left or 'none'} left to train.")

    def _info(self, message):
        print(f"CheckpointToDrive: {message}", flush=True)


def _default_local_folder(folder):
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
    return Path.home() / ".colabcnn" / f"{folder.name}-{digest}"
