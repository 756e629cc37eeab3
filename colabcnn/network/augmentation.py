"""Rotate, shift, mirror, channel-shift and cut out on the device; the caller draws the random numbers."""

import math
from typing import Any

import keras
import numpy as np

from colabcnn.errors import Error
from colabcnn.experiments.checks import check_choice
from colabcnn.experiments.ingredients import FILL_MODES, Augmentation
from colabcnn.network.devices import is_tpu
from colabcnn.network.keras_types import ops


def apply_transforms(images: Any, transforms: dict[str, Any], augmentation: Augmentation | None) -> Any:
    """Transform each image as an epoch's plan has drawn it.

    Args:
        images: as for `augment`.
        transforms: as in `EpochPlan`, for these images.
        augmentation: the experiment's; None leaves the images as they are.

    Returns:
        As `augment`.
    """
    if augmentation is None:
        return ops.cast(images, "float32")
    others = {name: values for name, values in transforms.items() if not name.startswith("cutout_")}
    images = augment(images, **others, fill_mode=augmentation.fill_mode)
    if not augmentation.cutout:
        return images
    row, column = transforms["cutout_row"], transforms["cutout_column"]
    return cut_out(images, row=row, column=column, size=augmentation.cutout)


def cut_out(images: Any, *, row: Any, column: Any, size: int) -> Any:
    """Make a square of each image grey, 127.5.

    Args:
        images: `(batch, height, width, channels) float32` on the 0-255 scale.
        row, column: `(batch,)` pixels from the upper left corner to the square's centre.
        size: the square's side, in pixels.
    """
    height, width = images.shape[1:3]
    rows = ops.abs(np.arange(height, dtype="float32")[:, None] + 0.5 - _per_image(row, 3)) < size / 2
    columns = ops.abs(np.arange(width, dtype="float32") + 0.5 - _per_image(column, 3)) < size / 2
    return ops.where(ops.expand_dims(ops.logical_and(rows, columns), -1), 127.5, images)


def augment(
    images: Any,
    *,
    rotation: Any,
    row_shift: Any,
    column_shift: Any,
    flip: Any,
    channel_shift: Any,
    fill_mode: str = "nearest",
) -> Any:
    """Transform each image as Keras 3's `ImageDataGenerator.apply_transform` does.

    Rotation and shift are one bilinear map about the image's centre, with `fill_mode` outside of the image; then comes
    the channel shift, clipped to the warped image's own minimum and maximum; then the mirroring. `row_shift` moves the
    image along its rows: Keras 3's parameter `ty`; `column_shift` is `tx`. It works eagerly, in `tf.function` (with XLA
    or without) and in `jax.jit`. Images that are not square turn about their centre; Keras 3.15 turns those about
    another point.

    Args:
        images: `(batch, height, width, channels)`, uint8 or float, on the 0-255 scale; the CIFAR shape is (32, 32, 3).
        rotation: `(batch,)` degrees.
        row_shift: `(batch,)` pixels; positive moves the image up.
        column_shift: `(batch,)` pixels; positive moves the image to the left.
        flip: `(batch,)` bool; True mirrors left and right.
        channel_shift: `(batch,)` added to every channel, on the 0-255 scale.
        fill_mode: "nearest" repeats the border outside, "reflect" mirrors the image there.

    Returns:
        `(batch, height, width, channels) float32` on the 0-255 scale.

    Raises:
        Error: an unknown `fill_mode`, or images of another rank.
    """
    check_choice("fill_mode", fill_mode, *FILL_MODES)
    images = ops.convert_to_tensor(images)
    if len(images.shape) != 4:
        raise Error(f"images have the shape {tuple(images.shape)}; expected (batch, height, width, channels).")
    if images.shape[0] == 0:
        return ops.cast(images, "float32")
    height, width = images.shape[1:3]
    rows, columns = _source_positions(height, width, rotation, row_shift, column_shift, flip)
    fill = _reflect if fill_mode == "reflect" else _repeat
    rows, columns = fill(rows, height), fill(columns, width)
    warped = (_sample_by_products if is_tpu() else _sample)(images, rows, columns)
    darkest = ops.min(warped, axis=(1, 2, 3), keepdims=True)
    brightest = ops.max(warped, axis=(1, 2, 3), keepdims=True)
    return ops.clip(warped + _per_image(channel_shift, 4), darkest, brightest)


def _source_positions(height, width, rotation, row_shift, column_shift, flip):
    """Return the input row and column of each output pixel, `(batch, height, width) float32`.

    A mirrored image's columns are read from right to left, so the flip costs no time.
    """
    angle = _per_image(rotation, 3) * (math.pi / 180)
    cosine, sine = ops.cos(angle), ops.sin(angle)
    mirror = 1.0 - 2.0 * _per_image(flip, 3)
    middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
    row = np.arange(height, dtype="float32")[:, None] - middle_row + _per_image(row_shift, 3)
    column = mirror * (np.arange(width, dtype="float32") - middle_column) + _per_image(column_shift, 3)
    rows = cosine * row + sine * column + middle_row
    columns = cosine * column - sine * row + middle_column
    return rows, columns


def _repeat(positions, size):
    """Return positions clipped to 0 to size - 1."""
    return ops.clip(positions, 0, size - 1)


def _reflect(positions, size):
    """Return positions mirrored at the image's edges, half a pixel outside of the first and the last pixel."""
    position = ops.mod(positions + 0.5, 2 * size)
    # In that half pixel, both neighbours are the border pixel.
    return _repeat(ops.minimum(position, 2 * size - position) - 0.5, size)


def _sample(images, rows, columns):
    """Return the images at fractional positions, bilinear, `float32`.

    It makes four gathers of pixels: one gather of 2x2 neighbourhoods was a quarter slower on two CPU cores. Under JAX
    it gathers each channel separately: XLA then fuses gathers, weights and sums into one loop, which raised the speed
    on two cores from 28,000 to 74,000 images a second (JAX 0.10). Under TensorFlow that is slower.
    """
    _, height, width, channels = images.shape
    first_pixel = ops.reshape(ops.arange(ops.shape(images)[0], dtype="int32") * (height * width), (-1, 1, 1))
    (even_row, even_row_weight), (odd_row, odd_row_weight) = _neighbours(rows, height)
    (even_column, even_column_weight), (odd_column, odd_column_weight) = _neighbours(columns, width)

    def sample(pixels, weighted):
        def at(row, column):
            return ops.cast(ops.take(pixels, first_pixel + row * width + column, axis=0), "float32")

        even = at(even_row, even_column) * weighted(even_column_weight)
        even += at(even_row, odd_column) * weighted(odd_column_weight)
        odd = at(odd_row, even_column) * weighted(even_column_weight)
        odd += at(odd_row, odd_column) * weighted(odd_column_weight)
        return even * weighted(even_row_weight) + odd * weighted(odd_row_weight)

    pixels = ops.reshape(images, (-1, channels))
    if keras.backend.backend() != "jax":
        return sample(pixels, lambda weight: ops.expand_dims(weight, -1))
    pixels = ops.cast(pixels, "float32")
    return ops.stack([sample(pixels[:, channel], lambda weight: weight) for channel in range(channels)], axis=-1)


def _sample_by_products(images, rows, columns):
    """As `_sample`, but by matrix products: a TPU gathers pixel by pixel.

    The compiler's own estimate for a TPU v5e, 128 images with rotation: 0.9 ms, and 82 ms by gathers (libtpu 0.0.23); a
    complete training step without the augmentation takes some 3 ms. It has not been measured on a TPU.
    """
    import jax

    _, height, width, channels = images.shape
    rows, columns = (ops.reshape(positions, (-1, height * width)) for positions in (rows, columns))
    lines = ops.reshape(ops.cast(images, "float32"), (-1, height, width * channels))
    with jax.default_matmul_precision("highest"):  # By itself a TPU rounds float32 to bfloat16 first.
        lines = ops.matmul(_weights(rows, height), lines)
    weighted = ops.reshape(lines, (-1, height * width, width, channels)) * ops.expand_dims(_weights(columns, width), -1)
    return ops.reshape(ops.sum(weighted, axis=2), (-1, height, width, channels))


def _weights(positions, size):
    """Return the weight of each integer below `size` at fractional positions; the two next to it have one above 0."""
    return ops.maximum(1 - ops.abs(ops.expand_dims(positions, -1) - np.arange(size, dtype="float32")), 0.0)


def _neighbours(positions, size):
    """Return the even and the odd integer next to each fractional position, `int32`, each with its weight.

    The lower and the upper integer would be wrong: XLA computes `positions` twice, for the index and for the weight,
    with different rounding. If an integer lies between the two results, the wrong neighbour gets the full weight. An
    even or odd index changes only where its weight is zero.
    """
    even = 2 * ops.floor((positions + 1) / 2)
    below = 2 * ops.floor(positions / 2)
    odd_weight = 1 - ops.abs(positions - below - 1)
    index = [ops.cast(ops.minimum(position, size - 1), "int32") for position in (even, below + 1)]
    return (index[0], 1 - odd_weight), (index[1], odd_weight)


def _per_image(values, rank):
    """Return one float per image, shaped to broadcast over `rank` dimensions."""
    return ops.reshape(ops.cast(values, "float32"), (-1,) + (1,) * (rank - 1))
