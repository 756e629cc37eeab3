"""Pictures of a data set's images, original and augmented."""

from collections.abc import Sequence

import numpy as np

from colabcnn.data.cifar10 import CLASS_NAMES
from colabcnn.data.epoch_plan import plan_epoch
from colabcnn.experiments.catalog import find_experiment
from colabcnn.experiments.experiment import NUM_CLASSES, Experiment
from colabcnn.viewing.curves import Picture

ROWS, COLUMNS = 4, NUM_CLASSES


def plot_images(images: np.ndarray, labels: np.ndarray | Sequence[int]) -> Picture:
    """Draw the first images of each class, one column per class.

    Args:
        images: `(n, 32, 32, 3) uint8`.
        labels: `(n,)` from 0 to 9.

    Returns:
        A `matplotlib.figure.Figure`, which a notebook shows.
    """
    figure, grid = _grid()
    for label, column in enumerate(grid.T):
        column[0].set_title(CLASS_NAMES[label], fontsize=9)
        for axes, image in zip(column, images[np.asarray(labels) == label][:ROWS], strict=False):
            axes.imshow(image)
    return figure


def plot_augmentation(experiment: Experiment | str, images: np.ndarray, *, seed: int = 0) -> Picture:
    """Draw images as three epochs may see them: the originals in the first row, one epoch in each other row.

    Args:
        experiment: an `Experiment`, or the name of one in `ABLATIONS` or `RECIPES`.
        images: `(n, 32, 32, 3) uint8`; the first ten are drawn.
        seed: the run's.

    Returns:
        A `matplotlib.figure.Figure`, which a notebook shows.

    Raises:
        Error: there is no such experiment.
    """
    from colabcnn.network.augmentation import apply_transforms

    experiment = find_experiment(experiment)
    images = images[:COLUMNS]
    figure, grid = _grid()
    grid[0, 0].set_ylabel("original", fontsize=9)
    for axes, image in zip(grid[0], images, strict=False):
        axes.imshow(image)
    for epoch, row in enumerate(grid[1:], start=1):
        row[0].set_ylabel(f"epoch {epoch}", fontsize=9)
        plan = plan_epoch(seed, epoch, size=len(images), augmentation=experiment.augmentation)
        order = np.argsort(plan.rows)
        transforms = {name: values[order] for name, values in plan.transforms.items()}
        seen = np.asarray(apply_transforms(images, transforms, experiment.augmentation))
        for axes, image in zip(row, seen, strict=False):
            axes.imshow(np.clip(np.rint(image), 0, 255).astype(np.uint8))
    return figure


def _grid():
    figure = Picture(figsize=(COLUMNS, 1.05 * ROWS + 0.2), layout="constrained")
    grid = figure.subplots(ROWS, COLUMNS)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return figure, grid
