"""The article's six experiments, each made from an earlier one by what the article changed."""

from dataclasses import replace
from types import MappingProxyType

from colabcnn.experiments.experiment import Augmentation, Experiment, Reported

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
    reported=Reported(
        best_val_accuracy=0.9010, best_epoch=326, epoch_seconds=54, finding="0.90 once in 700 epochs, by luck"
    ),
)

ABLATIONS = MappingProxyType(
    {e.name: e for e in (_descending, _augmentation, _dropout_20, _dropout_50, _ascending, _final)}
)
"""The article's six experiments in its own order; read-only."""
