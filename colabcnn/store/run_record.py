"""The record of a run and of its starts; `run.json` and checkpoints hold it."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any

from colabcnn.errors import MALFORMED, Error, UnknownFormatError
from colabcnn.experiments.checks import (
    Flag,
    Text,
    check_choice,
    check_count,
    check_fields,
    check_kind,
    check_text,
    check_texts,
)
from colabcnn.experiments.execution import Execution
from colabcnn.experiments.experiment import PRECISIONS, Experiment
from colabcnn.experiments.settings import flatten_settings, make

FORMAT = 2
"""The format of `run.json` and of checkpoints. 0.1.0 wrote format 1, without a number."""
DATA_NAMES = ("cifar10", "synthetic")
MOST_IMAGES = 1_000_000  # Of synthetic images; CIFAR-10 has 60,000.
_Count = Annotated[int, check_count, 0]
_Size = Annotated[int, check_count, 1, MOST_IMAGES]
_Line = Annotated[str, check_text, 1000]


@dataclass(frozen=True)
class Start:
    """One start of a run.

    Args:
        time: of day, UTC, ISO 8601.
        first_epoch: the first epoch that it trained, from 1.
        device: as `devices.device_name` names it.
        versions: of Python and of the packages that can change a run's last bits, by name.
        commit: of the library's checkout, with "-dirty" behind it if changed, or None.
        execution: the `Execution` in use; None until the step is compiled.
        refused: the execution that failed on the device, at this start or before, and the reason; None if none did.
        onednn: whether TensorFlow used oneDNN's operations; None if that is not known, or on an accelerator.
        ended: why it ended; None while it trains, and after a kill.
        last_epoch: the last epoch that it finished; None like `ended`.
    """

    # An error's text in `refused` or `ended` may have several lines; no table shows it.
    time: Text
    first_epoch: _Count
    device: Text
    versions: Annotated[dict[str, str], check_texts, 1000]
    commit: _Line | None = None
    execution: Execution | None = None
    refused: Text | None = None
    onednn: Flag | None = None
    ended: Text | None = None
    last_epoch: _Count | None = None
    __post_init__ = check_fields

    @property
    def backend(self) -> str:
        """Keras's backend: "jax" or "tensorflow"."""
        return "jax" if "jax" in self.versions else "tensorflow"


@dataclass(frozen=True)
class RunRecord:
    """All values that determine a run's results, and the run's starts.

    Args:
        experiment: `Experiment`; its `epochs` is the length of this run.
        seed: int from 0.
        data: "cifar10" or "synthetic".
        data_sha256: of the images and labels, hex.
        train_size, val_size: numbers of images, from 1 to a million.
        holdout: number of training images to validate on; 0 for the test set.
        precision: "float32", "mixed_bfloat16" or "mixed_float16".
        starts: the first one first.
    """

    experiment: Experiment
    seed: _Count
    data: Annotated[str, check_choice, *DATA_NAMES]
    data_sha256: Annotated[str, check_text, 64, "[0-9a-f]{64}"]
    train_size: _Size
    val_size: _Size
    holdout: Annotated[int, check_count, 0, MOST_IMAGES]
    precision: Annotated[str, check_choice, *PRECISIONS]
    starts: Annotated[tuple[Start, ...], check_kind, tuple] = ()
    __post_init__ = check_fields

    def with_start(self, start: Start) -> "RunRecord":
        """Return the record with one more start."""
        return replace(self, starts=(*self.starts, start))

    def with_last_start(self, **changes: Any) -> "RunRecord":
        """Return the record with changes to its last start."""
        return replace(self, starts=(*self.starts[:-1], replace(self.starts[-1], **changes)))

    def identity(self) -> dict[str, Any]:
        """Return the values that a continuation must share with this run, by name; see `identity_of`."""
        names = [f.name for f in fields(self) if f.name not in ("experiment", "holdout", "starts")]
        # A difference in the holdout is named first, since the sizes depend on it.
        return identity_of(self.experiment, **{name: getattr(self, name) for name in ("holdout", *names)})

    def fingerprint(self) -> str:
        """Return a SHA-256, hex, of the identity.

        It leaves out settings at their defaults, so that a version may add fields with defaults.
        """
        experiment = self.experiment.settings(changed_only=True)
        if self.experiment.is_extendable:
            experiment.pop("epochs", None)
        others = {name: value for name, value in self.identity().items() if not name.startswith("experiment")}
        return hashlib.sha256(json.dumps([experiment, others], sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON types, with its format."""
        return {"format": FORMAT, **asdict(self), "experiment": self.experiment.settings()}

    @classmethod
    def from_json(cls, value: Any, where: str) -> "RunRecord":
        """Return the record that `to_json` has written.

        Args:
            value: JSON types, which may come from someone else.
            where: the file's name, for the message.

        Raises:
            UnknownFormatError: the record has another format.
            Error: it is not a record.
        """
        check_format(value, where)
        try:
            return make(cls, {name: value[name] for name in value if name != "format"}, "the record")
        except Error as error:
            raise Error(f"{where} does not describe a run: {error!s:.300}") from None
        except MALFORMED:
            raise Error(f"{where} does not describe a run; expected what `train` writes.") from None


def identity_of(experiment: Experiment, **others: Any) -> dict[str, Any]:
    """Return the values that determine a run's results, by name: "experiment", "experiment.dropout", ..., "seed", ....

    They include the number of epochs only if the schedule depends on it: any other run can be extended.

    Args:
        experiment: `Experiment`.
        **others: more of the record's fields.
    """
    settings = flatten_settings(experiment.settings())
    # Without augmentation all of its settings are missing, and `first_difference` compares only what both sides have.
    settings["augmentation"] = experiment.augmentation is not None
    named = {"experiment": settings.pop("name")}
    if experiment.is_extendable:
        del settings["epochs"]
    return named | {f"experiment.{name}": value for name, value in settings.items()} | others


def first_difference(one: dict[str, Any], other: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """Return `(name, value, other value)` of the first difference between two identities, or None.

    A name that only one of them has is not compared: a request may leave values open.
    """
    return next(((name, one[name], other[name]) for name in one if name in other and one[name] != other[name]), None)


def check_format(value: Any, where: str) -> None:
    """Check that a record or a checkpoint has this version's format.

    Raises:
        UnknownFormatError: it has another one.
    """
    found = value.get("format", 1) if isinstance(value, dict) else None
    if found != FORMAT:
        raise UnknownFormatError(
            f"{where} is of format {found!r:.20}; this version of colabcnn reads format {FORMAT}. Nothing was changed: "
            "use the version that wrote it, or another folder."
        )
