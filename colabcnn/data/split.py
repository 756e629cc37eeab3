"""The training and validation images of a run: a split of CIFAR-10 or of synthetic images."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from colabcnn.data.cifar10 import Labelled, load_cifar10
from colabcnn.errors import Error
from colabcnn.experiments.checks import check_count
from colabcnn.experiments.experiment import NUM_CLASSES, TEST_SIZE, TRAIN_SIZE
from colabcnn.store.run_record import MOST_IMAGES


class Split(NamedTuple):
    """The data of a run: images `(n, 32, 32, 3) uint8`, labels `(n,) int64`."""

    train_images: np.ndarray
    train_labels: np.ndarray
    val_images: np.ndarray
    val_labels: np.ndarray

    def digest(self) -> str:
        """Return the SHA-256, in hex, over the bytes of all four arrays."""
        sha256 = hashlib.sha256()
        for array in self:
            sha256.update(np.ascontiguousarray(array).data)
        return sha256.hexdigest()


def load_data(data: str | Path, *, size: int | None = None, test_size: int | None = None) -> tuple[Labelled, Labelled]:
    """Load the data set that a run's `data` names.

    Args:
        data: "cifar10", "synthetic", or the path of a folder with CIFAR-10.
        size: number of synthetic training images, at most a million; None generates as many as CIFAR-10 has.
        test_size: likewise for the test images.

    Returns:
        As `load_cifar10`.

    Raises:
        Error: a size below 0 or above a million; as `load_cifar10`.
    """
    if data == "synthetic":
        from colabcnn.data.synthetic import load_synthetic

        size, test_size = TRAIN_SIZE if size is None else size, TEST_SIZE if test_size is None else test_size
        check_count("the number of synthetic training images", size, 0, MOST_IMAGES)
        check_count("the number of synthetic test images", test_size, 0, MOST_IMAGES)
        return load_synthetic(size, test_size)
    return load_cifar10(None if data == "cifar10" else data)


def load_split(
    data: str | Path, *, train_size: int | None = None, val_size: int | None = None, holdout: int = 0
) -> Split:
    """Load the data set that a run's `data` names and split it; generate only as many synthetic images as needed.

    Args, Returns and Raises are those of `load_data` and `split_data`.
    """
    needed = train_size + holdout if train_size else None
    train, test = load_data(data, size=needed, test_size=0 if holdout else val_size)
    return split_data(train, test, train_size=train_size, val_size=val_size, holdout=holdout)


def data_name(data: str | Path) -> str:
    """Return a data set's name for the run's record: "synthetic", or "cifar10" for any of its folders."""
    return "synthetic" if data == "synthetic" else "cifar10"


def split_data(
    train: Labelled, test: Labelled, *, train_size: int | None = None, val_size: int | None = None, holdout: int = 0
) -> Split:
    """Choose the images to train on and to validate on.

    Args:
        train: `(images, labels)` of the training set.
        test: `(images, labels)` of the test set.
        train_size: number of training images, the first ones; None takes all.
        val_size: number of validation images, the first ones; None takes all.
        holdout: 0 validates on the test set, as the article does; N validates on N training images, equally many of
            each class and the same ones for every seed, and does not use the test set.

    Returns:
        A `Split`.

    Raises:
        Error: a size is larger than the data set allows.
    """
    val = test
    if holdout:
        if holdout % NUM_CLASSES or not 0 < holdout < len(train[1]):
            raise Error(
                f"holdout is {holdout}; expected a multiple of {NUM_CLASSES} below the {len(train[1])} training images."
            )
        held_out = _stratified(train[1], holdout // NUM_CLASSES)
        val = train[0][held_out], train[1][held_out]
        train = train[0][~held_out], train[1][~held_out]
    for name, size, labels in (("train_size", train_size, train[1]), ("val_size", val_size, val[1])):
        if size is not None and not 1 <= size <= len(labels):
            raise Error(f"{name} is {size}; expected 1 to {len(labels)}, the number of images.")
    return Split(train[0][:train_size], train[1][:train_size], val[0][:val_size], val[1][:val_size])


def _stratified(labels, per_class):
    """Return a mask that picks `per_class` images of each class, always the same ones."""
    order = np.argsort(np.random.Philox(key=0).random_raw(len(labels)), kind="stable")
    mask = np.zeros(len(labels), dtype=bool)
    for label in range(NUM_CLASSES):
        mask[order[labels[order] == label][:per_class]] = True
    return mask
