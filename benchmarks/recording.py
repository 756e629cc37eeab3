"""A `Recorder` as `train` makes it, that says nothing, and a clock for one epoch of `fit`."""

import time

import keras

from colabcnn.store.history import empty_history
from colabcnn.store.run_folder import RunFolder
from colabcnn.training.interruption import Interruption
from colabcnn.training.progress import ProgressLine
from colabcnn.training.recorder import Recorder


def quiet_recorder(folder, experiment, *, checkpoint_minutes):
    """Return the `Recorder` of a run that begins, without Drive and without a limit of hours.

    Args:
        folder: a `Path`, the run's folder.
        experiment: `Experiment`.
        checkpoint_minutes: at least so long between two checkpoints.
    """
    return Recorder(
        RunFolder(folder),
        {"experiment": experiment.settings()},
        empty_history(),
        None,
        [],
        checkpoint_minutes=checkpoint_minutes,
        deadline=None,
        delivery=None,
        interruption=Interruption(),
        progress=ProgressLine(quiet=True),
    )


class Clock(keras.callbacks.Callback):
    """Measures the seconds of a `fit` of one epoch, without making its input and without taking it away again.

    That last may take as long as the epoch under TensorFlow (`colabcnn.feeding`), but only once a run.
    """

    def on_train_begin(self, logs=None):
        self._began = time.perf_counter()

    def on_train_end(self, logs=None):
        self.ended = time.perf_counter()
        self.seconds = self.ended - self._began
