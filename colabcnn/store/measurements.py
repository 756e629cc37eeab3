"""The file of one measurement: written here, sent by anybody, and checked when it is read.

A file has no field that can be computed from others, so that it cannot contradict itself.
"""

import hashlib
import json
import math
import re
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from colabcnn.errors import Error
from colabcnn.experiments.checks import (
    Flag,
    check_all,
    check_choice,
    check_count,
    check_fields,
    check_number,
    check_text,
    check_texts,
)
from colabcnn.experiments.execution import Execution
from colabcnn.experiments.experiment import PRECISIONS, TRAIN_SIZE
from colabcnn.experiments.settings import make
from colabcnn.store.files import write_atomically
from colabcnn.store.run_record import DATA_NAMES

FORMAT = 1
FOLDER = "measured"  # In the folder of the results.
MOST_BYTES = 20_000


Name = Annotated[str, check_text, 60]
Sentence = Annotated[str, check_text, 400]
Count = Annotated[int, check_count, 1, 1_000_000]
Column = Annotated[tuple, check_all, check_number, 0, 1e6]
Accuracy = Annotated[tuple, check_all, check_number, 0, 1]


@dataclass(frozen=True)
class Training:
    """One training: a value for each epoch, as `history.csv` has them.

    Args:
        steps: how the steps were executed.
        refused: an execution that failed on the device before, and why; "" for none.
        start_seconds: from the call of `run` to the end of the first epoch.
    """

    steps: Execution
    refused: Sentence
    start_seconds: Annotated[float, check_number, 0, 1e6]
    seconds: Annotated[tuple, check_all, check_number, 1e-6, 1e6]
    loss: Column
    accuracy: Accuracy
    val_loss: Column
    val_accuracy: Accuracy

    def __post_init__(self):
        check_fields(self)
        columns = (self.seconds, self.loss, self.accuracy, self.val_loss, self.val_accuracy)
        if len(set(map(len, columns))) > 1:
            raise Error("it does not have the same number of epochs in each list")

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
class InterruptedRun:
    """A run that was interrupted in its second epoch and then resumed.

    Args:
        by: "SIGKILL" of its process, or "exception" in the same process.
        why_not_killed: the reason for the exception, else "".
        first_epoch: the resumed run's first epoch; from 2 on, it has continued from a checkpoint.
        bit_for_bit: whether weights, optimizer and history equal those of the uninterrupted run.
        failed: why the interruption or the resume failed, else "".
    """

    by: Annotated[str, check_choice, "SIGKILL", "exception"]
    why_not_killed: Sentence
    first_epoch: Annotated[int, check_count, 0, 100]
    bit_for_bit: Flag
    failed: Sentence
    __post_init__ = check_fields


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
    date: Annotated[str, check_text, 10, r"[0-9]{4}-[0-9]{2}-[0-9]{2}"]
    device: Annotated[str, check_text, 120]
    platform: Annotated[str, check_text, 200]
    backend: Annotated[str, check_choice, "tensorflow", "jax"]
    versions: Annotated[dict, check_texts, 60]
    commit: Name
    experiment: Name
    data: Annotated[str, check_choice, *DATA_NAMES]
    train_size: Count
    val_size: Count
    precision: Annotated[str, check_choice, *PRECISIONS]
    peak_memory: Annotated[int, check_count, 0, 2**50] | None
    memory_of: Annotated[str, check_choice, "device", "process"]
    gflop_an_image: Annotated[float, check_number, 1e-6, 1e6]
    matrix_gflops: Annotated[float, check_number, 1e-3, 1e9]
    minutes: Annotated[float, check_number, 0, 1e5]
    auto: Training
    plain: Training | None
    plain_failed: Sentence
    resumed: Training | None
    interruption: InterruptedRun
    __post_init__ = check_fields

    def full_epoch_seconds(self, training: Training) -> float:
        """Return the seconds of an epoch of 50,000 images, with its validation, at a training's speed."""
        return training.epoch_seconds() * TRAIN_SIZE / self.train_size

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
        return make(Measurement, values, "the file")
    except (Error, RecursionError, TypeError) as error:
        raise Error(f"{name} is not what 13_measure writes: {str(error).rstrip('.')[:300]}") from None


def _shortened(value):
    """Return the beginning of a value's `repr`, which escapes unprintable characters."""
    return repr(value)[:60]
