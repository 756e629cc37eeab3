"""An experiment: all settings that determine a run's results, and the article's report about it."""

import math
import re
from dataclasses import dataclass, field
from typing import Annotated, Any

from colabcnn.errors import Error
from colabcnn.experiments.checks import Flag, check_all, check_choice, check_count, check_fields, check_number
from colabcnn.experiments.ingredients import Adam, Augmentation, Constant, Muon, RiseAndFall
from colabcnn.experiments.settings import as_json, make

IMAGE_SIZE = 32
NUM_CLASSES = 10
TRAIN_SIZE, TEST_SIZE = 50_000, 10_000  # CIFAR-10's numbers of images.
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
INITIALIZERS = ("glorot_uniform", "dirac")
MAX_CONVOLUTIONS = 100
# A valid folder name on every system, without a special meaning in a table, a shell or a terminal.
_NAME = re.compile(r"\w[\w .,+=-]{0,99}")
_Counts = Annotated[tuple[int, ...], check_all, check_count]


def all_images(holdout: int) -> tuple[int, int]:
    """Return CIFAR-10's numbers of training and validation images, if so many training images are held out."""
    return TRAIN_SIZE - holdout, holdout or TEST_SIZE


@dataclass(frozen=True)
class Reported:
    """The article's results of an experiment; None where it gives no number.

    Args:
        val_accuracy: the approximate final validation accuracy, fraction.
        best_val_accuracy: the best epoch's validation accuracy, fraction.
        best_epoch: the best epoch, from 1.
        epoch_seconds: duration of an epoch, seconds.
        finding: the article's observation in a few words of our own.
    """

    val_accuracy: float | None = None
    best_val_accuracy: float | None = None
    best_epoch: int | None = None
    epoch_seconds: float | None = None
    finding: str = ""

    def in_words(self) -> str:
        """Return the results in one line, without the seconds."""
        parts = []
        if self.val_accuracy is not None:
            parts.append(f"validation about {self.val_accuracy:g}")
        if self.best_val_accuracy is not None:
            at = f" at epoch {self.best_epoch}" if self.best_epoch else ""
            parts.append(f"best {self.best_val_accuracy:.4f}{at}")
        return "; ".join([*parts, self.finding])


@dataclass(frozen=True)
class Experiment:
    """All settings that determine a run's results, except its seed and its data.

    The article does not record optimizer, learning rate, channel shift or initializer: `optimizer`,
    `Augmentation.channel_shift_range` and `initializer` are this project's choice, Keras's defaults if there are any.
    To make your own variant: `dataclasses.replace(ABLATIONS["06_final"], name="my_variant", dropout=0.3)`.

    Args:
        name: of the run and its folder: letters, digits and " _.,+=-", 100 at most, with a letter, a digit or "_"
            first; a variant needs its own name.
        kernel_sizes: the kernel of each convolution in a set, in order; without padding each removes `kernel - 1`
            pixels.
        filters: the number of filters in each set.
        dropout: rate at the end of each set, fraction in [0, 0.99]; 0 leaves the layer out.
        augmentation: the transforms' ranges, or None.
        batch_size: images per step.
        epochs: the length of a run.
        optimizer: `Adam` or `Muon`.
        schedule: of the learning rate: `Constant` or `RiseAndFall`.
        label_smoothing: the part of a label that is spread over all classes, in the loss of training and of validation;
            fraction in [0, 0.9].
        initializer: of the convolutions' kernels: "glorot_uniform", Keras's default; or "dirac", where each of the
            first filters copies one channel, as far as there are channels (arXiv:2404.00498).
        batch_norm_momentum: the part of its moving statistics that BatchNorm keeps in a step; fraction in [0, 0.9999].
        precise_batch_norm: whether BatchNorm's moving statistics are averaged again before each validation, over 5,000
            training images without augmentation and dropout (`batch_norm.renew_statistics`); training does not change.
        reported: the article's results; comparisons ignore them.

    Raises:
        Error: a field of the wrong type or range, or kernels too large for the image.
    """

    PARTS_HAVE_KINDS = True  # Their JSON types name their class.
    name: str
    kernel_sizes: _Counts = (5, 3, 1)
    filters: _Counts = (64, 128, 256)
    dropout: Annotated[float, check_number, 0, 0.99] = 0.0
    augmentation: Augmentation | None = None
    batch_size: Annotated[int, check_count] = 128
    epochs: Annotated[int, check_count] = 700
    optimizer: Adam | Muon = Adam()
    schedule: Constant | RiseAndFall = Constant()
    label_smoothing: Annotated[float, check_number, 0, 0.9] = 0.0
    initializer: Annotated[str, check_choice, *INITIALIZERS] = "glorot_uniform"
    batch_norm_momentum: Annotated[float, check_number, 0, 0.9999] = 0.99
    precise_batch_norm: Flag = False
    reported: Reported = field(default=Reported(), compare=False)

    def __post_init__(self):
        check_fields(self)
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name) or len(self.name.encode()) > 200:
            raise Error(
                f"name is {self.name!r:.200}; expected up to 100 letters, digits and ' _.,+=-', such as 'my_variant'."
            )
        count = len(self.filters) * len(self.kernel_sizes)
        if count > MAX_CONVOLUTIONS:
            raise Error(f"filters and kernel_sizes make {count} convolutions; expected {MAX_CONVOLUTIONS} at most.")
        for number, (*_, size) in enumerate(self.convolutions()):
            if size < 1:
                raise Error(
                    f"kernel_sizes {self.kernel_sizes} in {len(self.filters)} sets leave nothing of a "
                    f"{IMAGE_SIZE}x{IMAGE_SIZE} image after set {number // len(self.kernel_sizes) + 1}; take smaller "
                    "kernels or fewer sets."
                )

    @property
    def is_extendable(self) -> bool:
        """Whether a run may change its number of epochs: its learning rate does not depend on it."""
        return isinstance(self.schedule, Constant)

    def settings(self, changed_only: bool = False) -> dict[str, Any]:
        """Return all fields but `reported` as JSON types; a nested dataclass has its class's name as `kind`.

        Args:
            changed_only: leave out fields at their defaults, so that a new field with a default changes nothing.
        """
        return {name: value for name, value in as_json(self, changed_only).items() if name != "kind"}

    def convolutions(self) -> list[tuple[int, int, int, int]]:
        """Return `(kernel size, channels, filters, output size)` of each convolution, in order."""
        layers, channels, size = [], 3, IMAGE_SIZE
        for number, filters in enumerate(self.filters):
            for kernel_size in self.kernel_sizes:
                size -= kernel_size - 1
                layers.append((kernel_size, channels, filters, size))
                channels = filters
            if number == 0 and len(self.filters) > 1:
                size //= 2  # The max pooling after the first set.
        return layers

    def weight_shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of the network's weights, in the order of its `weights`."""
        shapes, layers = [], self.convolutions()
        for kernel_size, channels, filters, _ in layers:
            shapes += [(kernel_size, kernel_size, channels, filters), (filters,), *[(filters,)] * 4]
        _, _, filters, size = layers[-1]
        return [*shapes, (filters * size**2, NUM_CLASSES), (NUM_CLASSES,)]

    def parameter_count(self) -> int:
        """Return the network's number of parameters, including BatchNorm's moving statistics, as Keras counts them."""
        return sum(math.prod(shape) for shape in self.weight_shapes())

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> "Experiment":
        """Return the experiment of settings (the inverse of `settings`).

        A missing field gets its default: a later version has added it.

        Raises:
            Error: the settings are not an experiment's, or have a field or a kind that this version does not know.
        """
        return make(cls, settings, "the experiment")
