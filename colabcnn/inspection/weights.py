"""A run's weights as a plain Keras model."""

import tempfile
from pathlib import Path

import keras
import numpy as np

from colabcnn.data.split import data_name
from colabcnn.errors import Error
from colabcnn.network.model import build_model
from colabcnn.store.checkpoint import Checkpoint
from colabcnn.store.files import copy_atomically
from colabcnn.store.history import best_of
from colabcnn.store.run_folder import RunFolder, open_checkpoint, record_of
from colabcnn.store.run_list import shipped_run
from colabcnn.store.run_record import RunRecord


def load_model(run_dir: str | Path) -> keras.Model:
    """Return the network with the weights of the run's best epoch.

    Args:
        run_dir: the run's folder, or the name of an experiment whose weights are shipped, in float16.

    Returns:
        A `keras.Model` of Keras's own layers in float32, from `(batch, 32, 32, 3) float32` in [0, 1] to `(batch, 10)`
        probabilities; `model.save("mine.keras")` writes a file that plain Keras opens.

    Raises:
        Error: there is no run in that folder, or no checkpoint of it.
    """
    return open_best(run_dir)[3]


def open_best(run_dir: str | Path) -> tuple[RunFolder, RunRecord, int, keras.Model]:
    """Return `(RunFolder, RunRecord, epoch, network)` of a run's best epoch.

    The weights are always the newest checkpoint's; `model.keras` is for plain Keras, and this library never reads it.

    Raises:
        Error: there is no run in that folder, or no checkpoint of it.
    """
    folder, record, checkpoint = open_checkpoint(shipped_run(run_dir))
    epoch, _ = best_of(checkpoint.metadata["history"])
    return folder, record, epoch, network_with_weights(record, checkpoint.arrays["best"])


def write_model(folder: RunFolder, checkpoint: Checkpoint) -> None:
    """Write `model.keras`, the best epoch's weights for plain Keras."""
    network = network_with_weights(record_of(checkpoint, folder.path), checkpoint.arrays["best"])
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "model.keras")  # Keras saves only under a name with this ending.
        network.save(path)
        copy_atomically(path, folder.model_keras)


def network_with_weights(record: RunRecord, weights: list[np.ndarray], precision: str = "float32") -> keras.Model:
    """Return the network of a run with the given weights."""
    network = build_model(record.experiment, seed=record.seed, precision=precision)
    network.set_weights(weights)
    return network


def check_data_name(folder: RunFolder, record: RunRecord, data: str | Path | None) -> None:
    """Check that the data set is the run's; None is the run's own.

    Raises:
        Error: it is another one.
    """
    if data is not None and data_name(data) != record.data:
        raise Error(f"{folder.path} was trained on {record.data}, not on {data!r}; leave the data out.")
