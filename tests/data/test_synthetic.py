"""The synthetic data has CIFAR-10's shapes and types, can be learned, and gains from augmentation."""

from dataclasses import replace

import numpy as np
import pytest

from colabcnn import Error, load_data, load_synthetic, run
from support.shared_files import COMPLETE


def test_shapes_and_types_are_those_of_cifar10():
    (train_images, train_labels), (test_images, test_labels) = load_synthetic(120, 30)
    assert (train_images.shape, train_images.dtype) == ((120, 32, 32, 3), np.uint8)
    assert (train_labels.shape, train_labels.dtype) == ((120,), np.int64)
    assert (len(test_images), len(test_labels)) == (30, 30)
    assert np.bincount(train_labels).tolist() == [12] * 10


def test_test_set_is_as_large_as_cifar10s_unless_a_size_is_given():
    sizes = (None, 30, 0)
    assert [len(load_data("synthetic", size=1, test_size=size)[1][1]) for size in sizes] == [10_000, 30, 0]
    for size in (-5, 1_000_001):
        with pytest.raises(Error, match=f"the number of synthetic test images is {size}; expected"):
            load_data("synthetic", size=1, test_size=size)


def test_fewer_images_are_the_first_of_more_and_the_sets_are_disjoint():
    (few, _), (test, _) = load_synthetic(1100, 100)
    (more, _), _ = load_synthetic(2300, 10)
    assert np.array_equal(few, more[:1100])
    train = {image.tobytes() for image in few}
    assert not any(image.tobytes() in train for image in test)


@pytest.mark.kill
def test_augmentation_improves_validation(tmp_path):
    experiment = replace(COMPLETE, name="synthetic", filters=(8, 16), dropout=0.0)
    options = {"data": "synthetic", "train_size": 200, "val_size": 200, "epochs": 40, "quiet": True}
    plain = run(replace(experiment, augmentation=None), tmp_path / "plain", **options).history
    augmented = run(experiment, tmp_path / "with", **options).history
    assert plain["accuracy"][-1] > 0.9  # The network has memorized the training images.
    assert augmented["val_accuracy"][-1] > plain["val_accuracy"][-1]
