"""The pictures show the images: the originals, and as each epoch sees them."""

import numpy as np
import pytest

from colabcnn import (
    ABLATIONS,
    CLASS_NAMES,
    augment,
    find_experiment,
    load_synthetic,
    plan_epoch,
    plot_augmentation,
    plot_images,
)

pytestmark = pytest.mark.versions


@pytest.fixture(scope="module")
def data():
    (images, labels), _ = load_synthetic(60, 1)
    return images, labels


def rows_of(figure):
    """Return the rows of the picture, each a list of images, with None for an empty place."""
    shown = [axes.images[0].get_array() if axes.images else None for axes in figure.axes]
    return [shown[start : start + 10] for start in range(0, len(shown), 10)]


def augmented_in_epoch(experiment, images, seed, epoch):
    """Return the images, augmented one by one, in their own order, on the 0-255 scale."""
    plan = plan_epoch(seed, epoch, size=len(images), augmentation=experiment.augmentation)
    augmented = {}
    for place, row in enumerate(plan.rows):
        transform = {name: values[place : place + 1] for name, values in plan.transforms.items()}
        fill_mode = experiment.augmentation.fill_mode
        augmented[row] = np.asarray(augment(images[row : row + 1], **transform, fill_mode=fill_mode))[0]
    return [augmented[row] for row in range(len(images))]


def test_each_column_holds_the_first_images_of_its_class(data):
    images, labels = data
    shuffled = np.random.default_rng(0).permutation(60)
    images, labels = images[shuffled], labels[shuffled]
    figure = plot_images(images, labels)
    assert [axes.get_title() for axes in figure.axes[:10]] == list(CLASS_NAMES)
    for number, row in enumerate(rows_of(figure)):
        for label, image in enumerate(row):
            np.testing.assert_array_equal(image, images[labels == label][number])
    assert len(rows_of(figure)) == 4
    assert figure._repr_png_()[:8] == b"\x89PNG\r\n\x1a\n"


def test_class_with_few_images_leaves_places_empty(data):
    images, labels = data
    rows = rows_of(plot_images(images[:13], list(labels[:13])))
    assert [[image is not None for image in row].count(True) for row in rows] == [10, 3, 0, 0]


@pytest.mark.parametrize(
    ("name", "seed"), [("02_augmentation", 0), ("06_final", 0), ("06_final", 7), ("08_in_minutes", 0)]
)
def test_originals_are_shown_above_the_images_of_three_epochs(data, name, seed):
    images = data[0]
    figure = plot_augmentation(name, images, seed=seed)
    originals, *epochs = rows_of(figure)
    assert [axes.get_ylabel() for axes in figure.axes[::10]] == ["original", "epoch 1", "epoch 2", "epoch 3"]
    np.testing.assert_array_equal(originals, images[:10])
    for epoch, row in enumerate(epochs, start=1):
        expected = augmented_in_epoch(find_experiment(name), images[:10], seed, epoch)
        for image, original, expected_image in zip(row, originals, expected, strict=True):
            assert image.dtype == np.uint8
            np.testing.assert_allclose(image, expected_image, atol=0.51)
            assert np.abs(image.astype(float) - original).mean() > 1
    assert figure._repr_png_()[:8] == b"\x89PNG\r\n\x1a\n"


def test_experiment_without_augmentation_shows_the_originals(data):
    for row in rows_of(plot_augmentation(ABLATIONS["01_descending_kernels"], data[0])):
        np.testing.assert_array_equal(row, data[0][:10])


def test_fewer_than_ten_images_leave_places_empty(data):
    for row in rows_of(plot_augmentation("06_final", data[0][:3])):
        assert [image is not None for image in row] == [True] * 3 + [False] * 7
