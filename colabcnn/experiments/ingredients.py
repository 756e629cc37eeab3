"""The nested settings of an experiment: augmentation, optimizer, schedule of the learning rate."""

from dataclasses import dataclass
from typing import Annotated

from colabcnn.errors import Error
from colabcnn.experiments.checks import Flag, check_choice, check_count, check_fields, check_number

FILL_MODES = ("nearest", "reflect")
Rate = Annotated[float, check_number, 1e-12, 1e3]


@dataclass(frozen=True)
class Augmentation:
    """The ranges from which each image's transform is drawn, as `ImageDataGenerator` names them.

    Args:
        rotation_range: degrees; the angle is uniform in [-rotation_range, rotation_range].
        width_shift_range: fraction of the width; the horizontal shift is uniform in +-width_shift_range.
        height_shift_range: fraction of the height; the vertical shift is uniform in +-height_shift_range.
        horizontal_flip: whether half of the images are mirrored.
        channel_shift_range: 0 to 255; one value for all three channels, uniform in +-channel_shift_range.
        whole_pixels: whether the shifts are whole pixels, all equally likely; the ranges are then rounded.
        alternating_flip: whether each image is mirrored in every second epoch; its first epoch is drawn once for the
            run. So both sides of an image are equally frequent (airbench, arXiv:2404.00498).
        fill_mode: the values outside of the image: "nearest" repeats its border, "reflect" mirrors the image at its
            edge.
        cutout: the side, in pixels, 0 to 32, of a grey square in each image. Its centre is uniform over the image, so
            a part of it may lie outside (arXiv:1708.04552).
    """

    rotation_range: Annotated[float, check_number, 0, 180] = 20.0
    width_shift_range: Annotated[float, check_number, 0, 1] = 0.2
    height_shift_range: Annotated[float, check_number, 0, 1] = 0.2
    horizontal_flip: Flag = True
    channel_shift_range: Annotated[float, check_number, 0, 255] = 0.0
    whole_pixels: Flag = False
    alternating_flip: Flag = False
    fill_mode: Annotated[str, check_choice, *FILL_MODES] = "nearest"
    cutout: Annotated[int, check_count, 0, 32] = 0

    def __post_init__(self):
        check_fields(self)
        if self.alternating_flip and not self.horizontal_flip:
            raise Error("alternating_flip is True and horizontal_flip False; expected both, or neither.")


@dataclass(frozen=True)
class Adam:
    """Keras's Adam for all weights.

    Args:
        learning_rate: the highest one, if there is a schedule.
    """

    learning_rate: Rate = 0.001
    __post_init__ = check_fields


@dataclass(frozen=True)
class Muon:
    """Muon for the kernels of convolutions over more than three channels, Adam for the rest (`optimizers.KernelMuon`).

    Each of these kernels keeps a fixed norm.

    Args:
        learning_rate: of Muon: at most about the rotation of a kernel in a step, relative to its norm. The highest one,
            if there is a schedule.
        adam_learning_rate: of Adam; the highest one, if there is a schedule.
        momentum: Muon's, with Nesterov's look-ahead; fraction in [0, 0.999].
        newton_schulz_steps: number of steps with which Muon makes an update nearly orthogonal, 1 to 20.
    """

    learning_rate: Rate
    adam_learning_rate: Rate
    momentum: Annotated[float, check_number, 0, 0.999] = 0.95
    newton_schulz_steps: Annotated[int, check_count, 1, 20] = 5
    __post_init__ = check_fields


@dataclass(frozen=True)
class Constant:
    """A constant learning rate; such a run can be extended."""


@dataclass(frozen=True)
class RiseAndFall:
    """A learning rate that rises linearly from 0, then falls linearly to 0 at the end of the run.

    The results then depend on the number of epochs, so another number of epochs makes another run.

    Args:
        rise: the part of the run in which the rate rises; fraction in [0, 0.9].
    """

    rise: Annotated[float, check_number, 0, 0.9] = 0.0
    __post_init__ = check_fields
