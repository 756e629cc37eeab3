"""The article's six experiments, each an earlier one with the article's change, and the recipes.

A recipe trains the network of the article's last experiment in another way.
"""

import difflib
from dataclasses import replace
from types import MappingProxyType

from colabcnn.errors import Error
from colabcnn.experiments.experiment import Experiment, Reported
from colabcnn.experiments.ingredients import Adam, Augmentation, Muon, RiseAndFall

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
    augmentation=Augmentation(channel_shift_range=50.0),
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
    reported=Reported(
        best_val_accuracy=0.9010, best_epoch=326, epoch_seconds=54, finding="0.90 once in 700 epochs, by luck"
    ),
)

_without_luck = replace(
    _final,
    name="07_without_luck",
    epochs=60,
    optimizer=Adam(learning_rate=0.01),
    schedule=RiseAndFall(rise=0.7),
    precise_batch_norm=True,
    reported=Reported(),
)
_light_augmentation = Augmentation(
    rotation_range=0.0,
    width_shift_range=0.09375,
    height_shift_range=0.09375,
    whole_pixels=True,
    alternating_flip=True,
    fill_mode="reflect",
)
_in_minutes = replace(
    _final,
    name="08_in_minutes",
    epochs=10,
    dropout=0.0,
    augmentation=_light_augmentation,
    optimizer=Muon(learning_rate=0.05, adam_learning_rate=0.015, momentum=0.6, newton_schulz_steps=3),
    schedule=RiseAndFall(rise=0.15),
    label_smoothing=0.1,
    initializer="dirac",
    batch_norm_momentum=0.97,
    reported=Reported(),
)
_in_8_epochs = replace(_in_minutes, name="08_in_8_epochs", epochs=8)
_as_far_as_it_goes = replace(
    _in_minutes,
    name="09_as_far_as_it_goes",
    epochs=40,
    augmentation=replace(_light_augmentation, width_shift_range=0.125, height_shift_range=0.125, cutout=12),
)


def _by_name(*experiments):
    return MappingProxyType({experiment.name: experiment for experiment in experiments})


ABLATIONS = _by_name(_descending, _augmentation, _dropout_20, _dropout_50, _ascending, _final)
"""The article's six experiments in its own order; read-only."""

RECIPES = _by_name(_without_luck, _in_minutes, _in_8_epochs, _as_far_as_it_goes)
"""Other ways to train the network of `06_final`; read-only."""

EXPERIMENTS = MappingProxyType({**ABLATIONS, **RECIPES})
"""All named experiments: the article's, then the recipes; read-only."""


def find_experiment(experiment: Experiment | str) -> Experiment:
    """Return the `Experiment` of a name, or the one given.

    Raises:
        Error: an unknown name, another type, or a variant that still carries the name of a different experiment.
    """
    if isinstance(experiment, str):
        if experiment not in EXPERIMENTS:
            close = [name for name in EXPERIMENTS if experiment and name.startswith(experiment)]
            close += difflib.get_close_matches(experiment, EXPERIMENTS, 1)
            meant = f" Did you mean {close[0]}?" if close else ""
            raise Error(f"there is no experiment {experiment!r}; expected one of {', '.join(EXPERIMENTS)}.{meant}")
        return EXPERIMENTS[experiment]
    if not isinstance(experiment, Experiment):
        raise Error(f"experiment is {experiment!r}; expected a name or a colabcnn.Experiment.")
    known = EXPERIMENTS.get(experiment.name)
    # Another number of epochs makes another run of the same experiment.
    if known is not None and replace(known, epochs=experiment.epochs) != experiment:
        raise Error(
            f"this variant still carries the name {experiment.name!r}; give it one of its own: "
            f"dataclasses.replace(..., name='my_variant')."
        )
    return experiment
