"""A Keras callback that makes anybody's `fit` continue where it was stopped."""

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

_training = {}  # By local folder: the callback that holds it in this process.


class CheckpointToDrive(FitCallback):
    """Checkpoint a `fit` to Google Drive, and continue it when the same cell runs again.

    ```python
    model.compile(...)
    model.fit(images, labels, epochs=100, callbacks=[CheckpointToDrive("/content/drive/MyDrive/my-run")])
    ```

    Run again, on this machine or another, the same code continues after the newest checkpoint that verifies; when all
    epochs are done, or EarlyStopping has ended it, it trains nothing and has the final weights. One folder is one run:
    use another folder for another run.

    What it guarantees: a checkpoint is one file with its SHA-256 in its name. One that is truncated, altered or missing
    is skipped, with the reason, for the one before. It restores the model's weights, the states of its random layers,
    the optimizer with its learning rate, the history that `fit` returns, and the state of Keras's EarlyStopping,
    ReduceLROnPlateau, ModelCheckpoint and SwapEMAWeights, at any place of this callback in the list. Training never
    waits for Drive: another process copies the files. A loss that is not finite replaces no checkpoint.

    What it cannot do: know the order of your data. `fit(x, y)` shuffles by a global generator, which a new process
    seeds again, so a resumed run is then as good as an undisturbed one but not the same one; it is the same where the
    order of an epoch depends on the epoch's number only, as with `shuffle=False`. A callback of your own keeps its
    state itself. Checkpoints are taken at the end of epochs: an interrupted epoch is trained again. Whether Drive has
    uploaded what it accepted cannot be seen from the runtime.

    Args:
        folder: where it delivers, such as a folder below `/content/drive/MyDrive`.
        local_folder: where checkpoints are written first; by default a folder in `~/.colabcnn` that `folder` names.
        checkpoint_minutes: at least so long between two local checkpoints; 0 takes one every epoch. The last epoch
            always takes one.
        drive_minutes: so many minutes between two deliveries; the end always delivers.

    Raises:
        Error: when training begins: another process trains in `local_folder`; the checkpoint is another model's;
            `folder` cannot be read while there is nothing here to continue from. During training: the local disk
            failed.
    """

    model: keras.Model  # Anybody's.
    # From the beginning of training on:
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
        self.local_folder = Path(local_folder).expanduser().absolute() if local_folder else _local(self.folder)
        if self.local_folder == self.folder:
            raise Error(f"local_folder is {self.folder}, which folder is too; expected a folder on the local disk.")
        self.drive_minutes = drive_minutes
        self._pause = checkpoint_minutes * 60
        self._others = []

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        # Last in the list, so that it sees what the others decided and restores what they reset. Keras gives a callback
        # no other way to the list than the one that is calling. The list is replaced, since Keras is walking along it.
        frame = sys._getframe(1)
        while frame and not isinstance(frame.f_locals.get("self"), keras.callbacks.CallbackList):
            frame = frame.f_back
        if frame:
            calling = frame.f_locals["self"]
            self._others = [callback for callback in calling.callbacks if callback is not self]
            calling.callbacks = [*self._others, self]

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if not self.model.built:
            raise Error("the model has no weights yet; build it with keras.Input(shape), or call it on one batch.")
        if not self.model.optimizer.built:  # TensorFlow would do so in the first step, after the restore.
            self.model.optimizer.build(self.model.trainable_variables)
        with self._disk_errors_readable():
            self._begin()
            try:
                checkpoint = self._newest()
                self._restore(checkpoint)
            except BaseException:
                self._end()
                raise
        self._epoch = checkpoint.epoch if checkpoint else 0
        self._checkpoint_at = time.monotonic()
        self._delivery.begin(self._run())

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch + 1
        ended_early = self.model.stop_training and early_stopping_ended(self._others)
        complete = ended_early or self._epoch >= self.params["epochs"]
        last = complete or self.model.stop_training
        self._delivery.tick()
        if self._delivery.newer_session and not complete:
            self._info(f"A newer session trains this run in {self.folder}: this one stops.")
            self.model.stop_training = True
        elif not all(math.isfinite(value) for name, value in (logs or {}).items() if name in ("loss", "val_loss")):
            if not self._spoilt:
                self._info(f"The loss is not finite in epoch {self._epoch}: no more checkpoints, the last one is kept.")
            self._spoilt = True
        elif not self._spoilt and (last or time.monotonic() - self._checkpoint_at >= self._pause):
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
        # An earlier `fit` of this process that was interrupted never came to its end.
        interrupted = _training.pop(self.local_folder, None)
        if interrupted:
            interrupted._end()
        self.local_folder.mkdir(parents=True, exist_ok=True)
        self._lock = Lock(self.local_folder)
        _training[self.local_folder] = self
        self._writer = CheckpointWriter(self.local_folder / "checkpoints")
        self._spoilt = False
        self._delivery = Delivery(self.local_folder, self.folder, minutes=self.drive_minutes, info=self._info)
        self._info(
            f"Checkpoints in {self.local_folder}, delivered to {self.folder} every {self.drive_minutes:g} minutes."
        )

    def _end(self):
        self.model._initial_epoch = None
        self._delivery.close()
        self._lock.release()
        _training.pop(self.local_folder, None)
        with contextlib.suppress(OSError):  # Reported when it was waited for, or of a `fit` that was interrupted.
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

    def _run(self):
        """Return what tells this run from another model's."""
        return hashlib.sha256(repr([tuple(variable.shape) for variable in self.model.variables]).encode()).hexdigest()

    def _newest(self):
        """Return the newest `Checkpoint` that verifies, here or on Drive, or None; move unusable ones aside."""
        checkpoint, skipped = newest_checkpoint(self.local_folder / "checkpoints")
        have = checkpoint.epoch if checkpoint else 0
        fetched = fetch_from_drive(self._delivery, have, self._info, run=self._run())["fetched"]
        self._delivery.take(fetched)
        if fetched:
            checkpoint, skipped = newest_checkpoint(self.local_folder / "checkpoints")
        for reason in skipped.values():
            self._info(f"Skipped: {reason}")
        if skipped:
            self._info(f"What cannot be used is kept in {move_aside(self.local_folder, skipped)}.")
        return checkpoint

    def _checkpoint(self, complete):
        states, arrays = save_states(self._others)
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
        for name in restore_states(self._others, states, arrays, continues=not finished):
            self._info(f"{name} was not among the callbacks before; it starts from nothing.")
        # As Keras's own BackupAndRestore does it.
        self.model._initial_epoch = epochs if finished else checkpoint.epoch
        left = max(0, epochs - self.model._initial_epoch)
        self._info(f"Epoch {checkpoint.epoch} of {epochs} is restored; {left or 'none'} left to train.")

    def _info(self, message):
        print(f"CheckpointToDrive: {message}", flush=True)


def _local(folder):
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
    return Path.home() / ".colabcnn" / f"{folder.name}-{digest}"
