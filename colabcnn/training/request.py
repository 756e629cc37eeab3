"""The request for a run: its options, their help texts and their checks, for Python and the command line."""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from math import inf
from pathlib import Path
from typing import Annotated, Any

from colabcnn.data.split import data_name
from colabcnn.experiments.catalog import find_experiment
from colabcnn.experiments.checks import Flag, check_choice, check_count, check_fields, check_number
from colabcnn.experiments.experiment import NUM_CLASSES, PRECISIONS, TRAIN_SIZE, Experiment, all_images
from colabcnn.store.run_record import identity_of

HELP = {
    "drive_folder": "folder, such as one on Google Drive: the run is copied there while it trains, and continues "
    "from there on another machine; training never waits for it (default: none)",
    "data": "cifar10: $CIFAR10_DIR, else Keras's cache, else a download; synthetic: generated images, which need "
    "nothing; or the folder of the official cifar-10-batches-py files (default: cifar10)",
    "epochs": "total number of epochs (default: the run's own; the experiment's for a new run); a larger number "
    "extends a run, unless its learning rate falls to the last epoch",
    "holdout": "number of training images to validate on and not to train on, a multiple of 10; the test set is left "
    "for `evaluate` (default: 0, which validates on the test set as the article does)",
    "train_size": "number of training images, the first ones; with a holdout at most those not held out (default: all)",
    "val_size": "number of validation images, the first ones; with a holdout at most those held out (default: all)",
    "seed": "determines the initial weights, the data order, augmentation and dropout (default: 0)",
    "hours": "stop, with a delivered checkpoint, before this many hours have passed from now (in Colab: from the start "
    "of the runtime), but not before one epoch is done (default: no limit)",
    "precision": "float32, mixed_float16, mixed_bfloat16, or auto, which suits the device; a run keeps the precision "
    "of its first start (default: auto)",
    "checkpoint_minutes": "least number of minutes between two checkpoints, 0 for one at every epoch; the end always "
    "writes one, and so does every epoch of more than 15 seconds (default: 1)",
    "drive_minutes": "minutes between two deliveries to the Drive folder; the end always delivers (default: 10)",
    "start_over": "move the old run into moved-aside-<n> in its folder, here and on Drive, and start a new run; leave "
    "this option out to resume",
    "allow_long": "train even if more than 40 hours are left on a CPU; without it such a run stops after its first "
    "steps, with a message about what would fit",
    "callbacks": "your own Keras callbacks; their `model` is a `keras.Model` whose only child is its `network`: call "
    "`model.predict`, but `model.network.evaluate`. On a GPU or TPU a call may make several steps; batch methods are "
    "then called once per call. One that sets `model.stop_training` stops the run at the end of the epoch; one that "
    "sets the learning rate needs an experiment without a schedule",
    "profile": "write a trace of ten calls of the compiled step into this folder, for TensorBoard, and under JAX for "
    "Perfetto, too",
    "quiet": "print nothing but errors, and the download of CIFAR-10",
}
"""The meaning of each option of `run`, for the command line's help and `run`'s docstring."""

OF_ONE_RUN = ("drive_folder", "seed", "start_over", "allow_long", "callbacks", "profile")
"""The options that belong to one run; a sweep takes all others for its runs."""


@dataclass(frozen=True)
class RunRequest:
    """The arguments of `run`, checked.

    Args:
        experiment: `Experiment`, or the name of one.
        run_dir: the run's folder on a local disk.
        drive_folder, ...: the options, as `HELP` has them.

    Raises:
        Error: an argument of the wrong type or range.
    """

    experiment: Experiment
    run_dir: str | Path
    drive_folder: str | Path | None = None
    data: str | Path = "cifar10"
    epochs: Annotated[int, check_count] | None = None
    holdout: Annotated[int, check_count, 0] = 0
    train_size: Annotated[int, check_count] | None = None
    val_size: Annotated[int, check_count] | None = None
    seed: Annotated[int, check_count, 0] = 0
    hours: Annotated[float, check_number, 1e-9, inf, "a number above 0, or None"] | None = None
    precision: Annotated[str, check_choice, "auto", *PRECISIONS] = "auto"
    checkpoint_minutes: Annotated[float, check_number, 0] = 1
    drive_minutes: Annotated[float, check_number, 0] = 10
    start_over: Flag = False
    allow_long: Flag = False
    callbacks: tuple = ()
    profile: str | Path | None = None
    quiet: Flag = False

    def __post_init__(self):
        object.__setattr__(self, "experiment", find_experiment(self.experiment))
        if data_name(self.data) == "cifar10":
            check_count("holdout", self.holdout, 0, TRAIN_SIZE - NUM_CLASSES)
        check_fields(self)
        if 0 < self.holdout < TRAIN_SIZE and self.train_size and self.train_size <= TRAIN_SIZE:
            object.__setattr__(self, "train_size", min(self.train_size, TRAIN_SIZE - self.holdout))
        if self.holdout and self.val_size:
            object.__setattr__(self, "val_size", min(self.val_size, self.holdout))
        given = self.callbacks if isinstance(self.callbacks, Iterable) else [self.callbacks]
        object.__setattr__(self, "callbacks", tuple(given))

    def arguments(self) -> list[str]:
        """Return the options that differ from their defaults, as the command line takes them."""
        given = [(option, getattr(self, option.name)) for option in fields(self) if option.name != "experiment"]
        changed = [(f"--{option.name.replace('_', '-')}", value) for option, value in given if value != option.default]
        return [part for flag, value in changed for part in ((flag,) if value is True else (flag, str(value)))]

    def identity(self) -> dict[str, Any]:
        """Return the values that a run must have to match this request, as `identity_of`; open values are left out."""
        experiment = self.experiment if self.epochs is None else replace(self.experiment, epochs=self.epochs)
        known = identity_of(experiment, seed=self.seed, holdout=self.holdout, data=data_name(self.data))
        if self.epochs is None:
            known.pop("experiment.epochs", None)
        train_size, val_size = all_images(self.holdout)
        known |= {"train_size": self.train_size or train_size, "val_size": self.val_size or val_size}
        return known if self.precision == "auto" else known | {"precision": self.precision}


def options_as_text(indent: str) -> str:
    """Return the options as the lines of a docstring's `Args`."""
    layout = {"width": 120, "initial_indent": indent, "subsequent_indent": indent + " " * 4}
    return "\n".join(textwrap.fill(f"{name}: {text}.", **layout) for name, text in HELP.items())
