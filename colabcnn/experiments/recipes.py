"""The network of the final experiment trained otherwise: without luck, and in minutes."""

from dataclasses import replace
from types import MappingProxyType

from colabcnn.errors import Error
from colabcnn.experiments.ablations import ABLATIONS
from colabcnn.experiments.experiment import Augmentation, Experiment, Reported

_FINAL = ABLATIONS["06_final"]

RECIPES = MappingProxyType(
    {
        experiment.name: experiment
        for experiment in (
            replace(
                _FINAL,
                name="07_without_luck",
                epochs=60,
                learning_rate=0.01,
                schedule="linear",
                warmup=0.7,
                precise_batch_norm=True,
                reported=Reported(),
            ),
            replace(
                _FINAL,
                name="08_in_minutes",
                epochs=10,
                dropout=0.0,
                augmentation=Augmentation(
                    rotation_range=0.0,
                    width_shift_range=0.09375,
                    height_shift_range=0.09375,
                    whole_pixels=True,
                    alternating_flip=True,
                    fill_mode="reflect",
                ),
                optimizer="muon",
                learning_rate=0.05,
                adam_learning_rate=0.015,
                momentum=0.6,
                newton_schulz_steps=3,
                schedule="linear",
                warmup=0.15,
                label_smoothing=0.1,
                initializer="dirac",
                batch_norm_momentum=0.97,
                reported=Reported(),
            ),
        )
    }
)
"""The network of `06_final`, layer by layer, trained otherwise; read-only."""

EXPERIMENTS = MappingProxyType({**ABLATIONS, **RECIPES})
"""The article's experiments, then the recipes: whatever has a name; read-only."""


def find_experiment(experiment):
    """Return the `Experiment` that a name stands for, or the one given.

    Raises:
        Error: an unknown name, another type, or a variant that still carries the name of a different experiment.
    """
    if isinstance(experiment, str):
        if experiment not in EXPERIMENTS:
            raise Error(f"there is no experiment {experiment!r}; expected one of {', '.join(EXPERIMENTS)}.")
        return EXPERIMENTS[experiment]
    if not isinstance(experiment, Experiment):
        raise Error(f"experiment is {experiment!r}; expected a name or a colabcnn.Experiment.")
    known = EXPERIMENTS.get(experiment.name)
    # Of another length it is the same experiment, if another run.
    if known is not None and replace(known, epochs=experiment.epochs).settings() != experiment.settings():
        raise Error(
            f"this variant still carries the name {experiment.name!r}; give it one of its own: "
            f"dataclasses.replace(..., name='my_variant')."
        )
    return experiment
