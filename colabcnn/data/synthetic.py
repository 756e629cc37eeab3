"""Synthetic images of CIFAR-10's shape and types; they need no download."""

import numpy as np

from colabcnn.data.cifar10 import Labelled
from colabcnn.experiments.experiment import IMAGE_SIZE, NUM_CLASSES, TEST_SIZE, TRAIN_SIZE

_CHUNK = 1000  # Images that are drawn at a time.
# Red, green and blue of each class's own colour, in [0, 1]: the corners of the cube and two more.
_COLOURS = np.array(
    [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1), (0, 0, 0), (1, 0.5, 0), (0.5, 0, 1)]
)
SHAPES = ("disc", "ring", "square", "frame", "triangle", "wedge", "plus", "cross", "rows", "columns")


def load_synthetic(train_size: int = TRAIN_SIZE, test_size: int = TEST_SIZE) -> tuple[Labelled, Labelled]:
    """Generate synthetic images: ten shapes of random place and size, rotated by up to 20 degrees, in noise.

    Each class has a typical colour, as ships are often blue, on a background of random colour. So a network learns in a
    few hundred steps, and augmentation still helps much on few images. An image depends only on its index: a smaller
    set is the beginning of a larger one.

    Args:
        train_size: number of training images.
        test_size: number of test images; they differ from the training images.

    Returns:
        `(train_images, train_labels), (test_images, test_labels)`: images `(n, 32, 32, 3) uint8`, labels `(n,) int64`
        from 0 to 9, the index into `SHAPES`, each class in turn.
    """
    return _draw(train_size, key=1), _draw(test_size, key=2)


def _draw(size, key):
    parameters, noise = np.random.Philox(key=key), np.random.Philox(key=key + 100)
    images = np.empty((size, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    for start in range(0, size, _CHUNK):
        count = min(_CHUNK, size - start)
        unit = (parameters.random_raw(count * 12).reshape(count, 12) >> np.uint64(11)) * 2.0**-53
        grain = (
            noise.random_raw(count * IMAGE_SIZE**2 * 3 // 8).view(np.uint8).reshape(count, IMAGE_SIZE, IMAGE_SIZE, 3)
        )
        ink = _ink(unit[:, :4])[..., None]
        labels = np.arange(count) % NUM_CLASSES
        background = 255 * unit[:, None, None, 4:7]
        foreground = 255 * (0.2 * unit[:, None, None, 7:10] + 0.8 * _COLOURS[labels][:, None, None])
        picture = background * (1 - ink) + foreground * ink + 0.2 * (grain - 127.5)
        images[start : start + count] = np.clip(np.rint(picture), 0, 255)
    return images, np.arange(size) % NUM_CLASSES


def _ink(unit):
    """Return the share of each pixel that its image's shape covers, `(count, 32, 32)` in [0, 1]."""
    centre_row, centre_column = (10 + 12 * unit[:, k, None, None] for k in (0, 1))
    radius = 7 + 4 * unit[:, 2, None, None]
    angle = np.deg2rad(20) * (2 * unit[:, 3, None, None] - 1)
    row, column = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE] + 0.5
    row, column = (row - centre_row) / radius, (column - centre_column) / radius
    u, v = np.cos(angle) * column + np.sin(angle) * row, np.cos(angle) * row - np.sin(angle) * column
    distance = np.empty_like(u)
    for label, shape in enumerate(SHAPES):
        distance[label::NUM_CLASSES] = _distance(shape, u[label::NUM_CLASSES], v[label::NUM_CLASSES])
    return np.clip(0.5 - distance * radius, 0, 1)


def _distance(shape, u, v):
    """Return the signed distance to a shape of radius about 1, negative inside; `u` to the right, `v` down."""
    round_, box = np.hypot(u, v), np.maximum(abs(u), abs(v))
    p, q = (u + v) / 2**0.5, (u - v) / 2**0.5
    distances = {
        "disc": lambda: round_ - 1,
        "ring": lambda: abs(round_ - 0.8) - 0.22,
        "square": lambda: box - 0.85,
        "frame": lambda: abs(box - 0.75) - 0.2,
        "triangle": lambda: np.maximum(v, 0.866 * abs(u) - 0.5 * v) - 0.6,
        "wedge": lambda: np.maximum(-v, 0.866 * abs(u) + 0.5 * v) - 0.6,
        "plus": lambda: np.maximum(np.minimum(abs(u), abs(v)) - 0.25, box - 1),
        "cross": lambda: np.maximum(np.minimum(abs(p), abs(q)) - 0.25, np.maximum(abs(p), abs(q)) - 1),
        "rows": lambda: np.maximum(abs(abs(v) - 0.55) - 0.22, abs(u) - 0.95),
        "columns": lambda: np.maximum(abs(abs(u) - 0.55) - 0.22, abs(v) - 0.95),
    }
    return distances[shape]()
