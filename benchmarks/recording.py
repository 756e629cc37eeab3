"""A quiet `Recorder` and `Display`, as `train` makes them, and a clock for one epoch of `fit`."""

import time

import keras

from colabcnn.network.keras_types import FitCallback, Logs, ops
from colabcnn.store.history import empty_history
from colabcnn.store.run_folder import RunFolder
from colabcnn.store.run_record import RunRecord
from colabcnn.training.display import Display
from colabcnn.training.interruption import Interruption
from colabcnn.training.progress import ProgressLine
from colabcnn.training.recorder import Recorder
from colabcnn.training.session import Session


def quiet_recording(folder, experiment, precision, sizes, *, checkpoint_minutes):
    """Return `(Recorder, Display)` of a run that starts, without Drive and without a limit of hours.

    Args:
        folder: a `Path`, the run's folder.
        experiment: `Experiment`.
        precision: the run's.
        sizes: numbers of training and validation images.
        checkpoint_minutes: minutes between two checkpoints, at least.
    """
    train_size, val_size = sizes
    record = RunRecord(experiment, 0, "cifar10", "0" * 64, train_size, val_size, 0, precision)
    session = Session(RunFolder(folder), record, None, Interruption(lambda message: None), ProgressLine(quiet=True))
    session.checkpoint_minutes = checkpoint_minutes
    recorder = Recorder(session, empty_history(), ())
    return recorder, Display(session, recorder)


class Clock(keras.callbacks.Callback):
    """Measures the seconds of a `fit` of one epoch, without creating and deleting its input.

    Under TensorFlow, deleting it may take as long as the epoch (`training_model.in_batches`), but only once a run.
    """

    def on_train_begin(self, logs=None):
        self._began = time.perf_counter()

    def on_train_end(self, logs=None):
        self.ended = time.perf_counter()
        self.seconds = self.ended - self._began


class Spans(FitCallback):
    """Measures the parts of an epoch, each until the device has finished it; it comes after the recorder.

    Args:
        calls: number of calls of the compiled step before training ends; None trains the complete epoch.
    """

    def __init__(self, calls=None):
        super().__init__()
        self.calls = calls

    def on_train_begin(self, logs=None):
        self._began, self._calls = time.perf_counter(), 0

    def on_epoch_begin(self, epoch, logs=None):
        self.plan = time.perf_counter() - self._began

    def on_train_batch_begin(self, batch, logs=None):
        # Not the end of the batch: its logs would make the host wait for the device at every call.
        self._calls += 1
        if self._calls == self.calls:
            self.model.stop_training, self.model.within_epoch = True, False  # At once.

    def on_test_begin(self, logs=None):
        int(ops.convert_to_numpy(self.model.optimizer.iterations))
        self._trained = time.perf_counter()
        self.training = self._trained - self._began

    def on_test_end(self, logs: Logs):
        float(logs["loss"])
        self._validated = time.perf_counter()
        self.validation = self._validated - self._trained

    def on_train_end(self, logs=None):
        self.rest = time.perf_counter() - self._validated
