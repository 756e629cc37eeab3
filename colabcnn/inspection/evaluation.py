"""Measure a run on the test set."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from colabcnn import output
from colabcnn.data.split import load_data
from colabcnn.errors import MALFORMED, Error
from colabcnn.inspection.weights import check_data_name, network_with_weights
from colabcnn.network import devices
from colabcnn.network.keras_types import ops
from colabcnn.network.training_model import in_batches
from colabcnn.store.files import write_atomically
from colabcnn.store.history import best_of
from colabcnn.store.run_folder import FLIP_AVERAGED, open_checkpoint


def evaluate(run_dir: str | Path, *, data: str | Path | None = None, progress: bool = False) -> dict[str, Any]:
    """Measure a run on the complete test set, and keep the result in its `test.json`.

    Args:
        run_dir: the run's folder.
        data: None takes the run's own; for a run on CIFAR-10 it may be the folder of CIFAR-10.
        progress: show Keras's progress bar.

    Returns:
        A dict of `epoch` and `weights_sha256` (of the newest checkpoint), `test_size`, and under `last_epoch` and
        `best_epoch` the `epoch`, `loss` (cross-entropy, never smoothed) and `accuracy` (fraction) of those weights, and
        the `flip_averaged_accuracy`, of the mean of each image's and its mirror image's probabilities. Called again for
        the same checkpoint, it returns the kept result.

    Raises:
        Error: there is no run in that folder, no checkpoint of it, no data, or other data than the run's.
    """
    folder, record, checkpoint = open_checkpoint(run_dir)
    check_data_name(folder, record, data)
    if checkpoint.kind == "shared":
        raise Error(
            f"{folder.path} was shared without its checkpoint; ask its sender for a file with the checkpoint.",
            "shared_without_checkpoint",
        )
    digest = checkpoint.weights_sha256()
    try:
        measured = json.loads(folder.test_json.read_text(encoding="utf-8"))
        results = measured["last_epoch"], measured["best_epoch"]
        is_complete = "test_size" in measured and all(FLIP_AVERAGED in result for result in results)
        if is_complete and measured["weights_sha256"] == digest:
            return measured
    except (OSError, *MALFORMED):
        pass
    _, (images, labels) = load_data(data or record.data, size=1)
    history = checkpoint.metadata["history"]
    measured = {"epoch": checkpoint.epoch, "weights_sha256": digest, "test_size": len(labels)}
    for name, epoch, weights in (
        ("last_epoch", checkpoint.epoch, checkpoint.arrays["model"]),
        ("best_epoch", best_of(history)[0], checkpoint.arrays["best"]),
    ):
        network = network_with_weights(record, weights, precision=record.precision)
        network.jit_compile = devices.plain_execution().xla  # By itself Keras compiles it by XLA on a GPU.
        measured[name] = {"epoch": epoch, **_measure(network, images, labels, progress)}
    try:
        write_atomically(folder.test_json, json.dumps(measured, indent=1) + "\n")
    except OSError as error:  # Such as a folder that somebody else has shared.
        output.write(f"{folder.test_json} cannot be written ({error.strerror}): the result is not kept.")
    return measured


def _measure(network, images, labels, progress):
    """Return a network's loss and accuracies on images, `(count, 32, 32, 3) uint8`, with their labels."""

    def predict(images):
        batches = in_batches(images.astype(np.float32) / 255, batch_size=250)
        return network.predict(**batches, verbose="auto" if progress else 0)

    def accuracy(probabilities):
        return float(np.mean(np.argmax(probabilities, axis=1) == labels))

    probabilities, mirrored = predict(images), predict(images[:, :, ::-1])
    losses = keras.losses.sparse_categorical_crossentropy(labels, probabilities)
    return {
        "loss": float(np.mean(ops.convert_to_numpy(losses))),
        "accuracy": accuracy(probabilities),
        FLIP_AVERAGED: accuracy(probabilities + mirrored),
    }
