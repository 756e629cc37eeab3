"""A Keras callback with which any `fit` resumes where it was stopped."""

import contextlib
import hashlib
import sys
import threading
import time
from pathlib import Path

import keras

from colabcnn import colab
from colabcnn.drive.delivery import FINISH_SECONDS, Delivery
from colabcnn.errors import MALFORMED, AnotherRunError, Error
from colabcnn.experiments.checks import check_number
from colabcnn.network.keras_types import FitCallback, Logs
from colabcnn.output import running_shell, write
from colabcnn.store.checkpoint import CheckpointWriter, newest_checkpoint, read_checkpoint
from colabcnn.store.checkpoint_files import FETCHED_SUFFIX, epoch_of
from colabcnn.store.files import disk_errors_readable, expand, is_same_folder, move_aside, remove_partials
from colabcnn.store.lock import Lock
from colabcnn.training.callback_states import early_stopping_ended, report_forgotten
from colabcnn.training.fit_checkpoint import FitCheckpoint
from colabcnn.training.resume import fetch_from_drive

# The longest wait for Drive after the stop button.
STOPPED_SECONDS = 20

_training = {}  # By local folder: the callback that has locked it in this process.


class CheckpointToDrive(FitCallback):
    """Checkpoint a `fit` to Google Drive, and resume it when the same cell runs again.

    ```python
    model.compile(...)
    model.fit(images, labels, epochs=100, callbacks=[CheckpointToDrive("/content/drive/MyDrive/my-run")])
    ```

    The same code, run again on this machine or another, resumes after the newest checkpoint that verifies. When all
    epochs are done, or EarlyStopping has ended training, it only restores the final weights. One folder is one run:
    use another folder for another run, fold or trial, and for another phase of fine-tuning.

    What it guarantees: a checkpoint is one file with its SHA-256 in its name. A truncated, altered or missing one is
    skipped, with the reason, and the one before is used. A resume restores the model's weights, the states of its
    random and recurrent layers, the optimizer with its learning rate, the history that `fit` returns, and the state of
    Keras's EarlyStopping, ReduceLROnPlateau, ModelCheckpoint, SwapEMAWeights and TensorBoard. It also restores what the
    model holds in attributes, lists and dicts: more optimizers, `keras.Variable`s, a `tf.Variable`, random generators,
    metrics that are never reset. This callback may have any place in the list. Training never waits for Drive: another
    process copies the files. No checkpoint is written while the loss, or a weight or log that was finite before, is NaN
    or infinity.

    What it cannot do: restore the order of your data. `fit(x, y)` shuffles with a global generator, which a new process
    seeds again. A resumed run is then as good as an uninterrupted one, but not identical. It is identical if an epoch's
    order depends only on the epoch's number, as with `shuffle=False`. Your own callbacks must keep their state
    themselves. It does not restore a plain number in an attribute of the model, a value of an unknown type in the logs,
    or a layer that the first step builds and Keras cannot build again; it names these once. Checkpoints are taken at
    the end of epochs: an interrupted epoch is trained again. The runtime cannot see whether Drive has uploaded the
    files that it accepted.

    Args:
        folder: where it delivers, such as a folder below `/content/drive/MyDrive`.
        local_folder: where checkpoints are written first; by default a folder in `~/.colabcnn`, named after `folder`.
        checkpoint_minutes: least number of minutes between two local checkpoints; 0 takes one every epoch. The last
            epoch always takes one.
        drive_minutes: minutes between two deliveries; the end always delivers.

    Raises:
        Error: a negative number of minutes, or `local_folder` is `folder`. When training begins: another process
            trains in `local_folder`; the checkpoint is another model's, or its optimizer has another class or trained
            other layers; `folder` cannot be read while there is no local checkpoint. During training: the local disk
            failed.
    """

    model: keras.Model

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
            check_number(name, value, 0)
        self.folder = expand(folder).absolute()
        self.local_folder = expand(local_folder or _default_local_folder(self.folder)).absolute()
        if is_same_folder(self.local_folder, self.folder):
            raise Error(f"local_folder is {self.folder}, which folder is too; expected a folder on the local disk.")
        self.drive_minutes = drive_minutes
        self._pause = checkpoint_minutes * 60
        self._other_callbacks = []
        self._initial_epoch: int | None = None  # As this callback has set the model's.

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
            if len(self._other_callbacks) < len(calling.callbacks):  # Otherwise another callback calls this one.
                calling.callbacks = [*self._other_callbacks, self]

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._fit_checkpoint = FitCheckpoint(self.model, self._other_callbacks, _info)
        with self._disk_errors_readable():
            self._begin()
            try:
                checkpoint, fetched = self._find_newest()
                if checkpoint:
                    self._restore(checkpoint)
                self._delivery.keep_fetched(fetched)
            except BaseException:
                try:
                    self._delivery.discard_fetched()
                finally:
                    self._end()
                raise
        self._epoch = checkpoint.epoch if checkpoint else 0
        self._checkpoint_at = time.monotonic()
        self._fit_checkpoint.begin()
        report_forgotten(self._other_callbacks, _info)
        self._delivery.begin(self._fit_checkpoint.fingerprint())

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._reset_initial_epoch()  # `fit` has read it.

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        self._delivery.tick()  # An epoch may take longer than `drive_minutes`.

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        if _training.get(self.local_folder) is self:  # `evaluate` has it, too.
            self._delivery.tick()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = int(epoch) + 1
        ended_early = self.model.stop_training and early_stopping_ended(self._other_callbacks)
        complete = bool(ended_early or self._epoch >= self.params["epochs"])
        last = complete or self.model.stop_training
        self._delivery.tick()
        if self._delivery.newer_session and not complete:
            _info(f"A newer session trains this run in {self.folder}: this one stops.")
            self.model.stop_training = True
        elif last or time.monotonic() - self._checkpoint_at >= self._pause:
            with self._disk_errors_readable():
                self._writer.wait()  # So that at most one checkpoint is in memory beside the model.
            progress = {"epochs": int(self.params["epochs"]), "complete": complete}
            if checkpoint := self._fit_checkpoint.make(self._epoch, progress, logs or {}):
                with self._disk_errors_readable():
                    self._writer.write(checkpoint)
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
        interrupted = _training.get(self.local_folder)
        if interrupted:
            if interrupted._runs_in_another_thread():
                raise Error(f"{self.local_folder} is being trained in by another `fit`; give another folder.")
            interrupted._end()
        self.local_folder.mkdir(parents=True, exist_ok=True)
        self._writer = CheckpointWriter(self.local_folder / "checkpoints")
        self._delivery = Delivery(self.local_folder, self.folder, minutes=self.drive_minutes, info=_info)
        self._thread = threading.get_ident()
        self._lock = Lock(self.local_folder)
        _training[self.local_folder] = self
        remove_partials(self.local_folder / "checkpoints", ["epoch-*"])  # A kill in the middle of a write leaves them.
        _info(f"Checkpoints in {self.local_folder}, delivered to {self.folder} every {self.drive_minutes:g} minutes.")
        if warning := colab.lost_with_session(self.folder):
            _info(warning)
        if threading.current_thread() is threading.main_thread() and (shell := running_shell()):
            # A cell that was interrupted has ended, too: the folder is free again.
            shell.events.register("post_run_cell", self._end_with_cell)

    def _runs_in_another_thread(self):
        """Return whether another thread still trains; a `fit` that was interrupted is in none of its frames."""
        frame = sys._current_frames().get(self._thread) if self._thread != threading.get_ident() else None
        while frame and (frame.f_code.co_name != "fit" or frame.f_locals.get("self") is not self.model):
            frame = frame.f_back
        return frame is not None

    def _end_with_cell(self, *_):
        if shell := running_shell():
            shell.events.unregister("post_run_cell", self._end_with_cell)
        if _training.get(self.local_folder) is self:
            try:
                with contextlib.suppress(OSError):  # The older checkpoints are delivered.
                    self._writer.wait()
                if not self._delivery.finishing:
                    self._delivery.finish(STOPPED_SECONDS)
            finally:
                self._end()

    def _reset_initial_epoch(self):
        if self._initial_epoch is not None and self.model._initial_epoch == self._initial_epoch:
            self.model._initial_epoch = None
        self._initial_epoch = None

    def _end(self):
        self._reset_initial_epoch()
        try:
            with contextlib.suppress(OSError):  # `on_train_end` has reported it, or the `fit` was interrupted.
                self._writer.wait()
        finally:
            self._delivery.close()
            self._lock.release()
            _training.pop(self.local_folder, None)

    def _disk_errors_readable(self):
        advice = "make room or give another local_folder, and call `fit` again"
        return disk_errors_readable(self.local_folder, advice, every=True)

    def _find_newest(self):
        """Return `(checkpoint, fetched)`, and move unusable files aside.

        The newest `Checkpoint` that verifies, here or on Drive, or None; and its name if it was fetched from Drive.
        """
        checkpoints = self.local_folder / "checkpoints"
        checkpoint, skipped = newest_checkpoint(checkpoints)
        epoch = checkpoint.epoch if checkpoint else 0
        try:
            fingerprint = self._fit_checkpoint.fingerprint()
            fetched = fetch_from_drive(self._delivery, epoch, _info, fingerprint=fingerprint)["fetched"]
        except AnotherRunError:
            raise AnotherRunError(
                f"{self.folder} holds the checkpoints of another model: its variables have other shapes, or another "
                f"number than the {len(self.model.variables)} of this one. Make the model as it was, or use another "
                "folder."
            ) from None
        if fetched:
            checkpoint = read_checkpoint(checkpoints / f"{fetched}{FETCHED_SUFFIX}")
            skipped = {path: reason for path, reason in skipped.items() if epoch_of(path) > checkpoint.epoch}
        for reason in skipped.values():
            _info(f"Skipped: {reason}")
        if skipped:
            _info(f"Unusable files are kept in {move_aside(self.local_folder, skipped)}.")
        return checkpoint, fetched

    def _restore(self, checkpoint):
        if checkpoint.kind != "fit":
            raise Error(f"{self.local_folder} holds a run of `colabcnn.run`; use another local_folder and folder.")
        if (self.model._initial_epoch or 0) > checkpoint.epoch:
            _info(
                f"Another callback has restored epoch {self.model._initial_epoch}; the checkpoint of epoch "
                f"{checkpoint.epoch} is older and not used."
            )
            return
        epochs = int(self.params["epochs"])
        try:
            finished = checkpoint.metadata["complete"] and epochs <= checkpoint.metadata["epochs"]
            self._fit_checkpoint.restore(checkpoint, continues=not finished)
        except MALFORMED as error:
            raise Error(
                f"the checkpoint of epoch {checkpoint.epoch} in {self.local_folder} does not fit this model ({error}); "
                "use another folder for another model."
            ) from error
        # Keras's own BackupAndRestore does the same.
        self._initial_epoch = self.model._initial_epoch = epochs if finished else checkpoint.epoch
        if not finished and epochs > checkpoint.epoch:
            _info(f"Epoch {checkpoint.epoch} of {epochs} is restored; {epochs - checkpoint.epoch} left to train.")
            return
        early = " It was ended by EarlyStopping." if finished and checkpoint.epoch < epochs else ""
        _info(
            f"Epoch {checkpoint.epoch} of {epochs} is restored, and this `fit` trains nothing.{early} To train longer, "
            f"give more than {max(epochs, checkpoint.epoch)} epochs. Another run, fold or trial needs another folder."
        )


def _info(message):
    write(f"CheckpointToDrive: {message}")


def _default_local_folder(folder):
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
    return expand("~/.colabcnn") / f"{folder.name}-{digest}"
