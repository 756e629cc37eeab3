"""The file of one measurement: written here, sent by anybody, and checked when it is read.

A file has no field that can be computed from others, so that it cannot contradict itself.
"""

import hashlib
import json
import math
import re
import statistics
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, get_args, get_type_hints

from colabcnn.errors import Error
from colabcnn.experiments.experiment import PRECISIONS
from colabcnn.store.files import write_atomically

FORMAT = 1
FOLDER = "measured"  # In the folder of the results.
MOST_BYTES = 20_000
FULL_SIZE = 50_000


def _number(least, most, kinds=(int, float)):
    return lambda value: type(value) in kinds and least <= value <= most


def _text(most):
    # A control character acts on a terminal, and half a surrogate pair cannot be printed.
    return lambda value: isinstance(value, str) and len(value) <= most and value.isprintable()


def _column(least, most):
    return lambda value: isinstance(value, list) and 1 <= len(value) <= 100 and all(map(_number(least, most), value))


def _is_versions(value):
    parts = value.items() if isinstance(value, dict) and len(value) <= 20 else [(None, None)]
    return all(_text(40)(name) and _text(60)(version) for name, version in parts)


def _is_bytes(value):
    return value is None or _number(0, 2**50, kinds=(int,))(value)


def _is_date(value):
    return isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII) is not None


# A field's value in a file must pass the check in its type's annotation.
Flag = Annotated[bool, lambda value: type(value) is bool]
Name = Annotated[str, _text(60)]
Sentence = Annotated[str, _text(400)]
Count = Annotated[int, _number(1, 1_000_000, kinds=(int,))]
Seconds = Annotated[float, _number(0, 1e6)]
Loss = Annotated[list, _column(0, 1e6)]
Accuracy = Annotated[list, _column(0, 1)]


def _one_of(*names):
    return lambda value: isinstance(value, str) and value in names


@dataclass(frozen=True)
class Steps:
    """An `Execution`, as `run.json` has it."""

    steps_per_call: Count
    xla: Flag
    fused_batch_norm: Flag
    xla_augmentation: Flag

    def in_words(self) -> str:
        """Return the execution as text for a table."""
        words = ["1 step a call" if self.steps_per_call == 1 else f"{self.steps_per_call} steps a call"]
        words += ["XLA"] if self.xla else []
        words += ["fused BatchNorm"] if self.fused_batch_norm else []
        words += ["augmentation by XLA"] if self.xla_augmentation else []
        return ", ".join(words)


@dataclass(frozen=True)
class Training:
    """One training: a value for each epoch, as `history.csv` has them.

    Args:
        steps: how the steps were executed.
        refused: an execution that failed on the device before, and why; "" for none.
        start_seconds: from the call of `run` to the end of the first epoch.
    """

    steps: Steps
    refused: Sentence
    start_seconds: Seconds
    seconds: Annotated[list, _column(1e-6, 1e6)]
    loss: Loss
    accuracy: Accuracy
    val_loss: Loss
    val_accuracy: Accuracy

    def epoch_seconds(self) -> float:
        """Return the median without the first epoch, which may hold the compilation."""
        return statistics.median(self.seconds[1:] or self.seconds)

    def overhead_seconds(self) -> float:
        """Return the seconds of a start beside its first epoch: for reading, building, compiling and trying out."""
        return max(0.0, self.start_seconds - self.epoch_seconds())

    def differences(self, other: "Training") -> tuple[float, float]:
        """Return the largest differences of training loss (a share of it) and training accuracy, epoch by epoch."""
        loss = max(abs(a - b) / max(a, b, 1e-9) for a, b in zip(self.loss, other.loss, strict=False))
        return loss, max(abs(a - b) for a, b in zip(self.accuracy, other.accuracy, strict=False))


@dataclass(frozen=True)
class Interruption:
    """A run that was interrupted in its second epoch and then resumed.

    Args:
        by: "SIGKILL" of its process, or "exception" in the same process.
        why_not_killed: the reason for the exception, else "".
        first_epoch: the resumed run's first epoch; from 2 on, it has continued from a checkpoint.
        bit_for_bit: whether weights, optimizer and history equal those of the uninterrupted run.
        failed: why the interruption or the resume failed, else "".
    """

    by: Annotated[str, _one_of("SIGKILL", "exception")]
    why_not_killed: Sentence
    first_epoch: Annotated[int, _number(0, 100, kinds=(int,))]
    bit_for_bit: Flag
    failed: Sentence


@dataclass(frozen=True)
class Measurement:
    """The content of a file in `results/measured/`, beside its `format`.

    Args:
        sent_by: a name for the credits, or "".
        date: such as "2026-11-26".
        train_size, val_size: numbers of images per epoch.
        peak_memory: bytes, or None if it is not counted.
        memory_of: "device" or "process".
        gflop_an_image: GFLOP to train on an image, as `arithmetic` counts them.
        matrix_gflops: GFLOP/s that the device reaches in a large matrix product, in this precision.
        minutes: the duration of the measurement.
        auto: the training with the execution that `run` chooses.
        plain: the same training in plain steps, or None if it failed.
        plain_failed: why it failed, else "".
        resumed: the interrupted and resumed training, or None if it failed.
        interruption: how it was interrupted.
    """

    sent_by: Name
    date: Annotated[str, _is_date]
    device: Annotated[str, _text(120)]
    platform: Annotated[str, _text(200)]
    backend: Annotated[str, _one_of("tensorflow", "jax")]
    versions: Annotated[dict, _is_versions]
    commit: Name
    experiment: Name
    data: Annotated[str, _one_of("cifar10", "synthetic")]
    train_size: Count
    val_size: Count
    precision: Annotated[str, _one_of(*PRECISIONS)]
    peak_memory: Annotated[int | None, _is_bytes]
    memory_of: Annotated[str, _one_of("device", "process")]
    gflop_an_image: Annotated[float, _number(1e-6, 1e6)]
    matrix_gflops: Annotated[float, _number(1e-3, 1e9)]
    minutes: Annotated[float, _number(0, 1e5)]
    auto: Training
    plain: Training | None
    plain_failed: Sentence
    resumed: Training | None
    interruption: Interruption

    def full_epoch_seconds(self, training: Training) -> float:
        """Return the seconds of an epoch of 50,000 images, with its validation, at a training's speed."""
        return training.epoch_seconds() * FULL_SIZE / self.train_size

    def tolerance(self) -> float:
        """Return the difference from `auto` that is allowed in training, of the loss (as a share) and the accuracy.

        Both trainings round differently, and after some twenty steps each has its own weights. The tolerance is twice
        the random error of the images, `1 / sqrt(train_size)`, plus 0.01. `results/README.md` has its measurements.
        """
        return 0.01 + 2 / math.sqrt(self.train_size)

    def agrees(self, training: Training) -> bool:
        """Return whether a training differs from `auto` by no more than the tolerance."""
        return max(self.auto.differences(training)) <= self.tolerance()

    def share_of_peak(self) -> float:
        """Return the GFLOP/s of the training `auto`, as a share in [0, 1] of the matrix product's."""
        return self.gflop_an_image * self.train_size / self.auto.epoch_seconds() / self.matrix_gflops


def write_measurement(folder: str | Path, measurement: Measurement) -> Path:
    """Write a `Measurement` into a folder, named after its device, backend, date and digest; return the path."""
    content = json.dumps({"format": FORMAT, **asdict(measurement)}, indent=1, ensure_ascii=False) + "\n"
    device = re.sub(r"[^a-z0-9]+", "-", measurement.device.lower()).strip("-")[:60]
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    path = Path(folder) / f"{device}-{measurement.backend}-{measurement.date}-{digest}.json"
    write_atomically(path, content)
    return path


def read_measurement(path: str | Path) -> Measurement:
    """Read a file as a `Measurement`.

    Raises:
        Error: it is too large, of another format, or not exactly what `write_measurement` writes.
    """
    path = Path(path)
    name = repr(path.name)  # The name of someone else's file may not be printable.
    try:
        if not path.is_file():
            raise Error(f"{name} is not a file")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise Error(f"{name} has more than {MOST_BYTES} bytes; a measurement has fewer")
        values = json.loads(content)
    except (OSError, RecursionError, ValueError) as error:
        raise Error(f"{name} cannot be read as JSON ({_shortened(str(error))})") from None
    version = values.pop("format", None) if isinstance(values, dict) else None
    if version is None:
        raise Error(f"{name} is not a measurement; expected a file that the notebook 13_measure wrote")
    if type(version) is not int or version != FORMAT:
        raise Error(f"{name} has format {_shortened(version)}; this version reads format {FORMAT}: update colabcnn")
    try:
        return _build(Measurement, values)
    except (RecursionError, ValueError) as error:
        raise Error(f"{name} is not what 13_measure writes: {error}") from None


def _build(kind, values, name="the file"):
    """Return a dataclass made from a file's dict; its keys must be the fields, and each value must pass its check."""
    types = get_type_hints(kind, include_extras=True)
    if not isinstance(values, dict) or set(values) != set(types):
        raise ValueError(f"{name} does not have the expected fields")
    fields = {}
    for field, hint in types.items():
        value, checks = values[field], getattr(hint, "__metadata__", None)
        if checks is None:
            nested = next(part for part in (hint, *get_args(hint)) if is_dataclass(part))
            is_optional = nested is not hint
            value = None if value is None and is_optional else _build(nested, value, field)
        elif not checks[0](value):
            raise ValueError(f"{field} is {_shortened(value)}")
        fields[field] = value
    if len({len(value) for value in fields.values() if isinstance(value, list)}) > 1:
        raise ValueError(f"{name} does not have the same number of epochs in each list")
    return kind(**fields)


def _shortened(value):
    """Return the beginning of a value's `repr`, which escapes unprintable characters."""
    return repr(value)[:60]
