"""The article's six experiments, each made from an earlier one by what the article changed."""

import re
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType

from colabcnn.errors import Error

IMAGE_SIZE = 32
NUM_CLASSES = 10
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
# A folder's name everywhere, and one that a table, a shell and a terminal leave alone.
_NAME = re.compile(r"\w[\w .,+=-]{0,99}")


@dataclass(frozen=True)
class Augmentation:
    """The ranges from which each image's transform is drawn, as `ImageDataGenerator` names them.

    Args:
        rotation_range: degrees; the angle is uniform in [-rotation_range, rotation_range].
        width_shift_range: fraction of the width; the horizontal shift is uniform in +-width_shift_range.
        height_shift_range: fraction of the height; the vertical shift is uniform in +-height_shift_range.
        horizontal_flip: whether half of the images are mirrored.
        channel_shift_range: 0 to 255; one value for all three channels, uniform in +-channel_shift_range.
    """

    rotation_range: float = 20.0
    width_shift_range: float = 0.2
    height_shift_range: float = 0.2
    horizontal_flip: bool = True
    channel_shift_range: float = 0.0

    def __post_init__(self):
        _check_number("rotation_range", self.rotation_range, 0, 180)
        _check_number("width_shift_range", self.width_shift_range, 0, 1)
        _check_number("height_shift_range", self.height_shift_range, 0, 1)
        _check_number("channel_shift_range", self.channel_shift_range, 0, 255)
        if not isinstance(self.horizontal_flip, bool):
            raise Error(f"horizontal_flip is {self.horizontal_flip!r}; expected True or False.")


@dataclass(frozen=True)
class Reported:
    """What the article reports of an experiment; None where it gives no number.

    Args:
        val_accuracy: about where the validation accuracy settled, fraction.
        best_val_accuracy: the best epoch's validation accuracy, fraction.
        best_epoch: which epoch that was, from 1.
        finding: the article's observation in a few words of our own.
    """

    val_accuracy: float | None = None
    best_val_accuracy: float | None = None
    best_epoch: int | None = None
    finding: str = ""

    def in_words(self):
        """Return it in one line."""
        parts = []
        if self.val_accuracy is not None:
            parts.append(f"validation about {self.val_accuracy:g}")
        if self.best_val_accuracy is not None:
            at = f" at epoch {self.best_epoch}" if self.best_epoch else ""
            parts.append(f"best {self.best_val_accuracy:.4f}{at}")
        return "; ".join([*parts, self.finding])


@dataclass(frozen=True)
class Experiment:
    """Everything that decides what a run computes, apart from its seed, its data and its length.

    The article does not record optimizer, learning rate, channel shift or initialiser: `optimizer`, `learning_rate` and
    `Augmentation.channel_shift_range` hold this project's choice, and the layers keep Keras's default initialisers.
    A variant of your own is `dataclasses.replace(ABLATIONS["06_final"], name="my_variant", dropout=0.3)`.

    Args:
        name: what the run is called, and its folder: letters, digits and " _.,+=-", 100 at most and no such sign first;
            a variant takes a name of its own.
        kernel_sizes: the kernel of each convolution in a set, in order; no padding, so each takes `kernel - 1` pixels.
        filters: the number of filters in each set.
        dropout: rate at the end of each set, fraction in [0, 1); 0 leaves the layer out.
        augmentation: the transforms' ranges, or None.
        batch_size: images a step.
        epochs: how long a run is unless told otherwise.
        optimizer: "adam", with Keras's defaults.
        learning_rate: constant over the run.
        reported: what the article reports; it does not take part in comparing runs.

    Raises:
        Error: a field of the wrong type or range, or kernels that leave nothing of the image.
    """

    name: str
    kernel_sizes: tuple[int, ...] = (5, 3, 1)
    filters: tuple[int, ...] = (64, 128, 256)
    dropout: float = 0.0
    augmentation: Augmentation | None = None
    batch_size: int = 128
    epochs: int = 700
    optimizer: str = "adam"
    learning_rate: float = 0.001
    reported: Reported = Reported()

    def __post_init__(self):
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name) or len(self.name.encode()) > 200:
            raise Error(
                f"name is {self.name!r:.200}; expected up to 100 letters, digits and ' _.,+=-', such as 'my_variant'."
            )
        for field in ("kernel_sizes", "filters"):
            value = getattr(self, field)
            if not isinstance(value, (tuple, list)) or not value or not all(_is_count(v) for v in value):
                raise Error(f"{field} is {value!r}; expected positive whole numbers, such as (64, 128, 256).")
            object.__setattr__(self, field, tuple(value))
        _check_number("dropout", self.dropout, 0, 0.99)
        _check_number("learning_rate", self.learning_rate, 1e-12, 1e3)
        for field in ("batch_size", "epochs"):
            if not _is_count(getattr(self, field)):
                raise Error(f"{field} is {getattr(self, field)!r}; expected a whole number from 1.")
        if self.optimizer != "adam":
            raise Error(f"optimizer is {self.optimizer!r}; expected 'adam'.")
        if self.augmentation is not None and not isinstance(self.augmentation, Augmentation):
            raise Error(f"augmentation is {self.augmentation!r}; expected an Augmentation or None.")
        size = IMAGE_SIZE
        for index in range(len(self.filters)):
            size -= sum(self.kernel_sizes) - len(self.kernel_sizes)
            if size < 1:
                raise Error(
                    f"kernel_sizes {self.kernel_sizes} in {len(self.filters)} sets leave nothing of a "
                    f"{IMAGE_SIZE}x{IMAGE_SIZE} image after set {index + 1}; take smaller kernels or fewer sets."
                )
            if index == 0 and len(self.filters) > 1:
                size //= 2

    def settings(self):
        """Return what a resumed run must match, as JSON types: all fields but `epochs` and `reported`."""
        settings = {key: value for key, value in asdict(self).items() if key not in ("epochs", "reported")}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}

    def parameter_count(self):
        """Return the number of the network's parameters, BatchNorm's moving statistics included, as Keras counts."""
        count, channels, size = 0, 3, IMAGE_SIZE
        for number, filters in enumerate(self.filters):
            for kernel_size in self.kernel_sizes:
                count += (channels * kernel_size**2 + 1) * filters + 4 * filters
                channels, size = filters, size - kernel_size + 1
            if number == 0 and len(self.filters) > 1:
                size //= 2
        return count + (channels * size**2 + 1) * NUM_CLASSES

    @classmethod
    def from_settings(cls, settings):
        """Return the experiment that `settings` describes (the inverse of `settings`).

        Raises:
            Error: a field that this version does not know.
        """
        unknown = set(settings) - {field.name for field in fields(cls)}
        if unknown:
            raise Error(f"the run's experiment has {sorted(unknown)}, unknown to this version; update colabcnn.")
        settings = dict(settings)
        if settings.get("augmentation") is not None:
            settings["augmentation"] = Augmentation(**settings["augmentation"])
        return cls(**settings)


def _is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_number(name, value, low, high):
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise Error(f"{name} is {value!r}; expected a number from {low:g} to {high:g}.")


_descending = Experiment(
    name="01_descending_kernels",
    reported=Reported(val_accuracy=0.75, finding="training near 1.00: 25 points of overfitting"),
)
_augmentation = replace(
    _descending,
    name="02_augmentation",
    augmentation=Augmentation(),
    reported=Reported(val_accuracy=0.85, finding="about 10 points up"),
)
_dropout_20 = replace(
    _augmentation,
    name="03_dropout_20",
    dropout=0.2,
    augmentation=replace(_augmentation.augmentation, channel_shift_range=50.0),
    reported=Reported(val_accuracy=0.875, finding="about 2.5 points up, still overfits"),
)
_dropout_50 = replace(
    _dropout_20,
    name="04_dropout_50",
    dropout=0.5,
    reported=Reported(finding="no overfitting left, accuracy below 03 (no number given)"),
)
_ascending = replace(
    _dropout_20,
    name="05_ascending_kernels",
    kernel_sizes=(1, 3, 5),
    reported=Reported(best_val_accuracy=0.8996, finding="1 to 2 points over descending kernels"),
)
_final = replace(
    _ascending,
    name="06_final",
    dropout=0.25,
    reported=Reported(best_val_accuracy=0.9010, best_epoch=326, finding="0.90 once in 700 epochs, by luck"),
)

ABLATIONS = MappingProxyType(
    {e.name: e for e in (_descending, _augmentation, _dropout_20, _dropout_50, _ascending, _final)}
)
"""The article's six experiments in its own order; read-only."""


def find_experiment(experiment):
    """Return the `Experiment` that a name stands for, or the one given.

    Raises:
        Error: an unknown name, another type, or a variant that still carries the name of a different experiment.
    """
    if isinstance(experiment, str):
        if experiment not in ABLATIONS:
            raise Error(f"there is no experiment {experiment!r}; expected one of {', '.join(ABLATIONS)}.")
        return ABLATIONS[experiment]
    if not isinstance(experiment, Experiment):
        raise Error(f"experiment is {experiment!r}; expected a name or a colabcnn.Experiment.")
    known = ABLATIONS.get(experiment.name)
    if known is not None and known.settings() != experiment.settings():
        raise Error(
            f"this variant still carries the name {experiment.name!r}; give it one of its own: "
            f"dataclasses.replace(..., name='my_variant')."
        )
    return experiment
