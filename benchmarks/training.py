"""`train` on 06_final against a bare `Model.fit`: python benchmarks/training.py [FOLDER] [--precision P]

Ours is an epoch as `train` runs it: images gathered from the resident set and augmented in the step, dropout reseeded,
validation, history, picture and checkpoint. The bare one is `Model.fit` of the same network on float images in memory,
with the same batches and the same validation, without augmentation and without any callback. FOLDER holds the official
CIFAR-10 files; without it the images are drawn by code. KERAS_BACKEND chooses the backend.
"""

import argparse
import tempfile
from pathlib import Path

import keras
import numpy as np

from colabcnn import ABLATIONS, build_model
from colabcnn.data import load_data, split_data
from colabcnn.session import compiled_model
from colabcnn.trainer import PlanEpoch
from pairs import compare, describe
from recording import quiet_recorder

VAL_SIZE = 250


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", default="synthetic")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--images", type=int, default=1280, help="training images an epoch (default: %(default)s)")
    options = parser.parse_args()
    train, test = load_data(options.data, size=options.images)
    split = split_data(train, test, train_size=options.images, val_size=VAL_SIZE)
    describe()
    with tempfile.TemporaryDirectory() as folder:
        compare(
            f"train, {options.precision}",
            our_epoch(split, options.precision, Path(folder)),
            "bare fit",
            bare_epoch(split, options.precision),
            images=options.images,
        )


def our_epoch(split, precision, folder):
    """Return a function that trains one more epoch as `run` does."""
    experiment = ABLATIONS["06_final"]
    model = compiled_model(experiment, split, seed=0, precision=precision)
    plan = PlanEpoch(experiment, 0, len(split.train_labels))
    recorder = quiet_recorder(folder, experiment, checkpoint_minutes=1)

    def epoch():
        done = len(recorder.history["epoch"])
        # `epochs` far ahead: the end of a run takes a checkpoint whatever the clock says.
        callbacks = [plan, recorder, StopAfterOne()]
        model.fit(
            np.arange(len(split.train_labels)),
            batch_size=experiment.batch_size,
            validation_data=(np.arange(VAL_SIZE),),
            validation_batch_size=VAL_SIZE,
            initial_epoch=done,
            epochs=done + 700,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        )

    return epoch


class StopAfterOne(keras.callbacks.Callback):
    """Stands behind the recorder, which so takes no epoch for the last one."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


def bare_epoch(split, precision):
    """Return a function that trains one epoch by plain `Model.fit`."""
    model = build_model(ABLATIONS["06_final"], precision=precision)
    adam = keras.optimizers.Adam(ABLATIONS["06_final"].learning_rate)
    optimizer = keras.optimizers.LossScaleOptimizer(adam) if precision == "mixed_float16" else adam
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    images, val_images = (values.astype(np.float32) / 255 for values in (split.train_images, split.val_images))

    def epoch():
        model.fit(
            images,
            split.train_labels,
            batch_size=ABLATIONS["06_final"].batch_size,
            validation_data=(val_images, split.val_labels),
            validation_batch_size=VAL_SIZE,
            verbose=0,
        )

    return epoch


if __name__ == "__main__":
    main()
