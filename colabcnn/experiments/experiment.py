"""What an experiment is: everything that decides what a run computes, and what the article reports of it."""

import re
from dataclasses import dataclass, fields

from colabcnn.errors import Error

IMAGE_SIZE = 32
NUM_CLASSES = 10
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
OPTIMIZERS = ("adam", "muon")
SCHEDULES = ("constant", "linear")
INITIALIZERS = ("glorot_uniform", "dirac")
FILL_MODES = ("nearest", "reflect")
# Fields that came later than the first runs: where they have their defaults they are left out of a run's settings, so
# that those runs go on.
_LATER = {"schedule", "warmup", "adam_learning_rate", "momentum", "newton_schulz_steps", "label_smoothing"}
_LATER |= {"initializer", "batch_norm_momentum", "precise_batch_norm", "whole_pixels", "alternating_flip", "fill_mode"}
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
        whole_pixels: whether the shifts are whole pixels, each as likely as the others; the ranges are then rounded.
        alternating_flip: whether an image that is mirrored in one epoch is not in the next, and so on: which ones begin
            is drawn once for the run. Each image is so seen from both sides equally often (airbench, arXiv:2404.00498).
        fill_mode: what lies outside of the image: "nearest", its border repeated, or "reflect", the image mirrored at
            its edge.
    """

    rotation_range: float = 20.0
    width_shift_range: float = 0.2
    height_shift_range: float = 0.2
    horizontal_flip: bool = True
    channel_shift_range: float = 0.0
    whole_pixels: bool = False
    alternating_flip: bool = False
    fill_mode: str = "nearest"

    def __post_init__(self):
        _check_number("rotation_range", self.rotation_range, 0, 180)
        _check_number("width_shift_range", self.width_shift_range, 0, 1)
        _check_number("height_shift_range", self.height_shift_range, 0, 1)
        _check_number("channel_shift_range", self.channel_shift_range, 0, 255)
        for field in ("horizontal_flip", "whole_pixels", "alternating_flip"):
            if not isinstance(getattr(self, field), bool):
                raise Error(f"{field} is {getattr(self, field)!r}; expected True or False.")
        if self.alternating_flip and not self.horizontal_flip:
            raise Error("alternating_flip is True and horizontal_flip False; expected both, or neither.")
        check_choice("fill_mode", self.fill_mode, FILL_MODES)


@dataclass(frozen=True)
class Reported:
    """What the article reports of an experiment; None where it gives no number.

    Args:
        val_accuracy: about where the validation accuracy settled, fraction.
        best_val_accuracy: the best epoch's validation accuracy, fraction.
        best_epoch: which epoch that was, from 1.
        epoch_seconds: what an epoch took, seconds.
        finding: the article's observation in a few words of our own.
    """

    val_accuracy: float | None = None
    best_val_accuracy: float | None = None
    best_epoch: int | None = None
    epoch_seconds: float | None = None
    finding: str = ""

    def in_words(self):
        """Return it in one line, without the seconds."""
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

    The article does not record optimizer, learning rate, channel shift or initialiser: `optimizer`, `learning_rate`,
    `Augmentation.channel_shift_range` and `initializer` hold this project's choice, Keras's defaults where it has them.
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
        optimizer: "adam", with Keras's defaults; or "muon": Muon for the kernels of convolutions over more than three
            channels, each kept at a norm of its own, and Adam for the rest (`optimizers.KernelMuon`).
        learning_rate: of Adam; of Muon at most about the turn of a kernel in a step, relative to its norm. With a
            schedule, the highest.
        schedule: "constant", or "linear": the rate rises from 0 over `warmup`, then falls to 0 at the end of the run.
            How long a run is then decides what it computes, so a run of another number of epochs is another run.
        warmup: how much of the run the rate rises for, linearly; fraction in [0, 0.9], 0 with "constant".
        adam_learning_rate: with "muon", the highest rate of Adam for the rest; None takes `learning_rate`.
        momentum: Muon's, with Nesterov's look ahead; fraction in [0, 0.999]; at its default with "adam".
        newton_schulz_steps: Muon's, 1 to 20, with which it brings an update near to orthogonal; at its default with
            "adam", too.
        label_smoothing: how much of a label is spread over all classes, in the loss of training and of validation;
            fraction in [0, 0.9].
        initializer: of the convolutions' kernels: "glorot_uniform", Keras's default; or "dirac", the same with the
            first filters made to hand on one channel each, as far as there are channels (arXiv:2404.00498).
        batch_norm_momentum: how much of its moving statistics BatchNorm keeps in a step; fraction in [0, 0.9999].
        precise_batch_norm: whether BatchNorm's moving statistics are averaged anew before each validation, over 5,000
            training images without augmentation and dropout (`batch_statistics.renew_statistics`); training is the
            same.
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
    schedule: str = "constant"
    warmup: float = 0.0
    adam_learning_rate: float | None = None
    momentum: float = 0.95
    newton_schulz_steps: int = 5
    label_smoothing: float = 0.0
    initializer: str = "glorot_uniform"
    batch_norm_momentum: float = 0.99
    precise_batch_norm: bool = False
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
        if self.adam_learning_rate is not None:
            _check_number("adam_learning_rate", self.adam_learning_rate, 1e-12, 1e3)
        for field, highest in (("warmup", 0.9), ("label_smoothing", 0.9)):
            _check_number(field, getattr(self, field), 0, highest)
        _check_number("momentum", self.momentum, 0, 0.999)
        _check_number("batch_norm_momentum", self.batch_norm_momentum, 0, 0.9999)
        _check_number("newton_schulz_steps", self.newton_schulz_steps, 1, 20)
        for field in ("batch_size", "epochs", "newton_schulz_steps"):
            if not _is_count(getattr(self, field)):
                raise Error(f"{field} is {getattr(self, field)!r}; expected a whole number from 1.")
        if not isinstance(self.precise_batch_norm, bool):
            raise Error(f"precise_batch_norm is {self.precise_batch_norm!r}; expected True or False.")
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("initializer", self.initializer, INITIALIZERS)
        if self.optimizer == "adam":
            self._refuse_idle("optimizer", ("adam_learning_rate", "momentum", "newton_schulz_steps"))
        if self.schedule == "constant":
            self._refuse_idle("schedule", ("warmup",))
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

    def _refuse_idle(self, decided_by, names):
        """Refuse fields that do nothing beside another one and are not at their defaults."""
        defaults = {field.name: field.default for field in fields(self) if field.name in names}
        if idle := [name for name in names if getattr(self, name) != defaults[name]]:
            given = ", ".join(f"{name} is {getattr(self, name)!r}" for name in idle)
            expected = ", ".join(f"{name}={defaults[name]!r}" for name in idle)
            raise Error(
                f"{given}, which does nothing with {decided_by}={getattr(self, decided_by)!r}; give {expected} with it."
            )

    def settings(self):
        """Return what a resumed run must match, as JSON types.

        All fields but `reported`, but `epochs` where no schedule depends on it, and but those that came later where
        they have their defaults.
        """
        settings = _without_defaults(self)
        del settings["reported"]
        if self.schedule == "constant":
            del settings["epochs"]
        if self.augmentation is not None:
            settings["augmentation"] = _without_defaults(self.augmentation)
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
        settings = dict(settings)
        if settings.get("augmentation") is not None:
            settings["augmentation"] = _made_from(Augmentation, settings["augmentation"])
        return _made_from(cls, settings)


LATER_DEFAULTS = {field.name: field.default for field in fields(Experiment) if field.name in _LATER}
"""What the fields have that `Experiment.settings` leaves out."""


def _made_from(cls, settings):
    unknown = set(settings) - {field.name for field in fields(cls)}
    if unknown:
        raise Error(f"the run's experiment has {sorted(unknown)}, unknown to this version; update colabcnn.")
    return cls(**settings)


def _without_defaults(settings):
    """Return a dataclass's fields as a dict, without those that came later where they have their defaults."""
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    defaults = {field.name: field.default for field in fields(settings) if field.name in _LATER}
    return {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}


def check_choice(name, value, choices):
    """Refuse a value that is none of the choices, by the name that it was given by."""
    if value not in choices:
        raise Error(f"{name} is {value!r}; expected one of {', '.join(map(repr, choices))}.")


def _is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_number(name, value, low, high):
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise Error(f"{name} is {value!r}; expected a number from {low:g} to {high:g}.")
