"""The order of an epoch's images and one transform for each, as a pure function of seed and epoch."""

from dataclasses import dataclass, field

import numpy as np

from colabcnn.experiments.experiment import IMAGE_SIZE
from colabcnn.experiments.ingredients import Augmentation


@dataclass(frozen=True)
class EpochPlan:
    """The order and the transforms of an epoch's images.

    Args:
        rows: `(size,) int64`, a permutation: the i-th image trained on is row `rows[i]` of the training set.
        transforms: `apply_transforms`' arguments, each `(size,)`, for the i-th image trained on; empty without
            augmentation.
    """

    rows: np.ndarray
    transforms: dict[str, np.ndarray] = field(default_factory=dict)


def plan_epoch(seed: int, epoch: int, *, size: int, augmentation: Augmentation | None = None) -> EpochPlan:
    """Plan one epoch.

    All random numbers come from Philox's raw 64-bit output: NumPy keeps it the same in every version, but not
    `Generator.permutation` and the like. So a run keeps its plan after an upgrade.

    Args:
        seed: int from 0 to 2**64 - 1, the run's.
        epoch: int from 1.
        size: number of training images.
        augmentation: `Augmentation`, or None for the images as they are.

    Returns:
        An `EpochPlan`. Its transforms are uniform in the augmentation's ranges, as
        `ImageDataGenerator.get_random_transform` draws them: `rotation` in degrees, `row_shift` and `column_shift` in
        pixels, `channel_shift` on the 0-255 scale, all `float32`; `flip` is `bool`. The augmentation may request whole
        pixels, alternating flips, and a cutout: then `cutout_row` and `cutout_column`, the centre in pixels from the
        image's upper left corner, are there, too.
    """
    bits = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64))

    def uniform(limit):
        unit = (bits.random_raw(size) >> np.uint64(11)) * 2.0**-53
        return ((2.0 * unit - 1.0) * limit).astype(np.float32)

    rows = np.argsort(bits.random_raw(size), kind="stable")
    if augmentation is None:
        return EpochPlan(rows)

    def shift(limit):
        if not augmentation.whole_pixels:
            return uniform(limit)
        pixels = round(limit)
        return np.floor(uniform(pixels + 0.5) + 0.5).clip(-pixels, pixels)

    transforms = {
        "rotation": uniform(augmentation.rotation_range),
        "row_shift": shift(augmentation.height_shift_range * IMAGE_SIZE),
        "column_shift": shift(augmentation.width_shift_range * IMAGE_SIZE),
        "flip": (uniform(1.0) < 0.0) & augmentation.horizontal_flip,
        "channel_shift": uniform(augmentation.channel_shift_range),
    }
    if augmentation.alternating_flip:
        # Each image's first flip is drawn once for the run: epochs begin with 1, so 0 is free as a key.
        first = np.random.Philox(key=np.array([seed, 0], dtype=np.uint64)).random_raw(size) >> np.uint64(63) == 1
        transforms["flip"] = first[rows] ^ (epoch % 2 == 0)
    if augmentation.cutout:
        middle = IMAGE_SIZE / 2
        transforms |= {f"cutout_{axis}": middle + uniform(middle) for axis in ("row", "column")}
    return EpochPlan(rows, transforms)
