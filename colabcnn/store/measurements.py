"""The file of one measurement: written here, sent by somebody, and read as data that may be wrong.

What can be computed from other fields is computed where it is shown, so that a file cannot contradict itself.
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
    # What is not printable acts on a terminal, and half a surrogate pair cannot be printed at all.
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


# What a file has for a field must pass the check that its type is annotated with.
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
        """Return what it is, for a table."""
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
        refused: what the device could not do before that, and why; "" where nothing.
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
        """Return what a start takes beside its epochs: it reads, builds, compiles and tries out."""
        return max(0.0, self.start_seconds - self.epoch_seconds())

    def differences(self, other: "Training") -> tuple[float, float]:
        """Return the largest differences of training loss (a share of it) and training accuracy, epoch by epoch."""
        losses = zip(self.loss, other.loss, strict=False)
        accuracies = zip(self.accuracy, other.accuracy, strict=False)
        return (
            max(abs(a - b) / max(a, b, 1e-9) for a, b in losses),
            max(abs(a - b) for a, b in accuracies),
        )


@dataclass(frozen=True)
class Interruption:
    """A run that was ended in its second epoch and then resumed.

    Args:
        by: "SIGKILL" of its process, or "exception" in the same process.
        why_not_killed: why it was no SIGKILL, else "".
        first_epoch: the one that the resumed run began with; from 2 on, it has continued from a checkpoint.
        bit_for_bit: whether weights, optimizer and history are those of the run that was not interrupted.
        failed: why it did not go through, else "".
    """

    by: Annotated[str, _one_of("SIGKILL", "exception")]
    why_not_killed: Sentence
    first_epoch: Annotated[int, _number(0, 100, kinds=(int,))]
    bit_for_bit: Flag
    failed: Sentence


@dataclass(frozen=True)
class Measurement:
    """What a file in `results/measured/` holds, beside its `format`.

    Args:
        sent_by: a name to be credited by, or "".
        date: such as "2026-11-26".
        train_size, val_size: images that the epochs had.
        peak_memory: bytes, or None where nothing counts it.
        memory_of: "device" or "process".
        gflop_an_image: to train, as `arithmetic` counts it.
        matrix_gflops: GFLOP/s that the device reaches in a large matrix product, in this precision.
        minutes: that all of it took.
        auto: trained as `run` chooses.
        plain: the same in plain steps, or None where that failed.
        plain_failed: why it did, else "".
        resumed: the run that was interrupted, as it ended, or None where that failed.
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
        """Return by how much loss, as a share, and accuracy in training may differ from those of `auto`.

        Both round differently, and after some twenty steps each has weights of its own. What is left is the chance of
        so many images, `1 / sqrt(train_size)`, twice, and 0.01. `results/README.md` has the measurements behind it.
        """
        return 0.01 + 2 / math.sqrt(self.train_size)

    def agrees(self, training: Training) -> bool:
        """Return whether a training differs from `auto` by no more than the tolerance."""
        return max(self.auto.differences(training)) <= self.tolerance()

    def share_of_peak(self) -> float:
        """Return the share, in [0, 1], that training as `auto` has of the matrix product's GFLOP/s."""
        return self.gflop_an_image * self.train_size / self.auto.epoch_seconds() / self.matrix_gflops


def write_measurement(folder: str | Path, measurement: Measurement) -> Path:
    """Write a `Measurement` into a folder, under a name of its device, backend, date and digest; return the path."""
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
    name = repr(path.name)  # Of somebody else's file the name, too, may be one that cannot be printed.
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
        return _built(Measurement, values)
    except (RecursionError, ValueError) as error:
        raise Error(f"{name} is not what 13_measure writes: {error}") from None


def _built(kind, values, name="the file"):
    """Return a dataclass made from a file's dict, whose keys must be its fields and each value pass its check."""
    types = get_type_hints(kind, include_extras=True)
    if not isinstance(values, dict) or set(values) != set(types):
        raise ValueError(f"{name} does not have the expected fields")
    built = {}
    for field, hint in types.items():
        value, checks = values[field], getattr(hint, "__metadata__", None)
        if checks is None:
            nested = next(part for part in (hint, *get_args(hint)) if is_dataclass(part))
            may_be_none = nested is not hint
            value = None if value is None and may_be_none else _built(nested, value, field)
        elif not checks[0](value):
            raise ValueError(f"{field} is {_shortened(value)}")
        built[field] = value
    if len({len(value) for value in built.values() if isinstance(value, list)}) > 1:
        raise ValueError(f"{name} has not the same number of epochs in each list")
    return kind(**built)


def _shortened(value):
    """Return the beginning of a value as Python writes it, which escapes what is not printable."""
    return repr(value)[:60]
