"""What the notebooks say of an experiment: its changes, from its fields; its results, from the runs in `results/`."""

import itertools
import statistics
from collections.abc import Callable
from typing import Any

from colabcnn import Error
from colabcnn.experiments.catalog import ABLATIONS, EXPERIMENTS
from colabcnn.experiments.experiment import IMAGE_SIZE, Experiment
from colabcnn.experiments.settings import flatten_settings
from colabcnn.store.history import History, best_of
from colabcnn.viewing.luck import with_deviation
from colabcnn.viewing.measured_runs import MeasuredRun, longest
from colabcnn.viewing.table import as_table, as_text
from orderings import LAST, training_table
from result_tables import (
    NOT_MEASURED,
    RunsByName,
    by_device,
    complete_summary_table,
    duration_in_words,
    last_epochs,
    seconds_in_table,
)

FEATURES = ("kernel_sizes", "filters", "dropout", "augmentation", "optimizer", "schedule", "epochs")


def _number(value):
    return f"{value:g}" if value else "none"


def _yes(value):
    return "yes" if value else "no"


def _pixels(value):
    return f"up to {value * IMAGE_SIZE:g} pixels" if value else "none"


WORDS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "kernel_sizes": ("kernels in a set, in order", lambda sizes: ", ".join(f"{size}x{size}" for size in sizes)),
    "filters": ("filters in each set", lambda filters: ", ".join(map(str, filters))),
    "dropout": ("dropout", lambda rate: f"{rate:.2f}" if rate else "none"),
    "augmentation.rotation_range": ("rotation", lambda value: f"up to {value:g} degrees" if value else "none"),
    "augmentation.width_shift_range": ("shift to the left or right", _pixels),
    "augmentation.height_shift_range": ("shift up or down", _pixels),
    "augmentation.horizontal_flip": ("mirrored images", lambda value: "half of them" if value else "none"),
    "augmentation.channel_shift_range": (
        "shift of the colour values",
        lambda value: f"up to {value:g} of 255" if value else "none",
    ),
    "augmentation.whole_pixels": ("shifts by whole pixels only", _yes),
    "augmentation.alternating_flip": ("each image mirrored in every second epoch", _yes),
    "augmentation.fill_mode": (
        "what fills the border after a shift",
        lambda mode: {"nearest": "the border pixels repeated", "reflect": "the image mirrored"}.get(mode, "none"),
    ),
    "augmentation.cutout": ("side of a grey square in each image", lambda side: f"{side} pixels" if side else "none"),
    "batch_size": ("images in a step", str),
    "epochs": ("epochs", str),
    "optimizer.kind": ("optimizer", lambda kind: f"{kind}, and Adam" if kind == "Muon" else kind),
    "optimizer.learning_rate": ("learning rate (the highest)", _number),
    "optimizer.adam_learning_rate": ("learning rate of Adam beside Muon", _number),
    "optimizer.momentum": ("momentum of Muon", _number),
    "optimizer.newton_schulz_steps": ("steps that make an update of Muon orthogonal", _number),
    "schedule.kind": (
        "learning rate during the run",
        lambda kind: {"Constant": "constant", "RiseAndFall": "rises, then falls to 0"}[kind],
    ),
    "schedule.rise": ("part of the run in which it rises", _number),
    "label_smoothing": ("part of each label that is spread over all classes", _number),
    "initializer": (
        "kernels at the start",
        lambda name: {"glorot_uniform": "random (Glorot)", "dirac": "copies of the input (Dirac)"}[name],
    ),
    "batch_norm_momentum": ("part of its statistics that BatchNorm keeps in a step", _number),
    "precise_batch_norm": ("BatchNorm's statistics computed again before validation", _yes),
}
"""A learner's words for each setting, by its name in `flatten_settings`, and the words for its value; None is none."""


def changes_table(experiment: Experiment, base: Experiment | None) -> str:
    """Return the settings that differ from an earlier experiment, a row for each; without one, the main settings.

    Raises:
        Error: a setting has no entry in `WORDS`.
    """
    new, old = _settings(experiment), _settings(base) if base else {}
    if base is None:
        rows = [(WORDS[name][0], _in_words(name, new)) for name in new if name.partition(".")[0] in FEATURES]
        rows += [] if experiment.augmentation else [("augmentation", "none")]
        return as_table(("setting", experiment.name[:2]), rows)
    columns = [known.name[:2] for known in (base, experiment)]
    columns = columns if len({*columns}) == 2 else [base.name, experiment.name]
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if unknown := [name for name in changed if name not in WORDS]:
        raise Error(f"the settings {', '.join(unknown)} have no words; add them to WORDS in tools/notebook_values.py.")
    rows = [(WORDS[name][0], _in_words(name, old), _in_words(name, new)) for name in WORDS if name in changed]
    return as_table(("setting", *columns), [row for row in rows if row[1] != row[2]])


def _settings(experiment):
    settings = {name: value for name, value in experiment.settings().items() if name != "name" and value is not None}
    return {name: value for name, value in flatten_settings(settings).items() if name != "augmentation.kind"}


def _in_words(name, settings):
    return WORDS[name][1](settings[name]) if settings.get(name) is not None else _missing(name)


def _missing(name):
    return "no" if WORDS[name][1] is _yes else "none"


def values_of(experiment: Experiment, base: Experiment | None, runs_of: RunsByName) -> dict[str, str]:
    """Return the text of each placeholder that the experiments' notebooks have in common.

    Args:
        experiment: the notebook's.
        base: the one that it is compared with, or None.
        runs_of: as `read_results` returns them.

    Returns:
        A dict of tables and sentences, and of single numbers: `this.<name>` and `base.<name>`. `mean` is of all seeds'
        last epochs, the others are of the run that `plot_shipped` draws.
    """
    names = [known.name for known in (base, experiment) if known]
    reported, seconds = experiment.reported.in_words(), EXPERIMENTS["06_final"].reported.epoch_seconds or 0
    values = {
        "name": experiment.name,
        "epochs": str(experiment.epochs),
        "article_seconds": f"{seconds:g}",
        "article_hours": f"{EXPERIMENTS['06_final'].epochs * seconds / 3600:g}",
        "reported": reported[:1].upper() + reported[1:],
        "parameters": f"{experiment.parameter_count():,}",
        "changes": changes_table(experiment, base),
        "measured": f"{complete_summary_table(runs_of, names)}\n\n{training_table(runs_of, names)}",
        "duration": duration_sentence(experiment, longest(runs_of[experiment.name])),
    }
    for prefix, known in (("this", experiment), ("base", base)):
        if known:
            values |= {f"{prefix}.{name}": number for name, number in numbers(known, runs_of).items()}
            runs = longest(runs_of[known.name])
            values[f"{prefix}.mean"] = with_deviation(last_epochs(runs)) if runs else NOT_MEASURED
    if base:
        values["base.parameters"] = f"{base.parameter_count():,}"
        values["arithmetic"] = f"{_multiplications(experiment) / _multiplications(base):.1f}"
        values["base.reported_best"], values["this.reported_best"] = map(_reported_best, (base, experiment))
        values["reported_difference"] = _reported_difference(experiment, base)
        values["first_at_base"] = _first_at_base(longest(runs_of[experiment.name]), longest(runs_of[base.name]))
    return values


def duration_sentence(experiment: Experiment, runs: list[MeasuredRun]) -> str:
    """Return the seconds of an epoch on each device, and what they make for the experiment's epochs."""
    devices = by_device((run, run.seconds_by_device()) for run in runs)
    if not devices:
        return "Other work slowed all runs, so no time is given." if runs else f"An epoch is {NOT_MEASURED}."
    hours = "; ".join(duration_in_words([experiment.epochs * s for s in seconds]) for seconds in devices.values())
    measured = as_text(seconds_in_table(runs))
    of_all = f"For {experiment.epochs} epochs this makes {hours} (calculated)."
    if experiment.name in ABLATIONS:
        of_all += " Other work slowed some of these runs, so do not compare the times of two experiments."
    return f"Seconds per epoch, measured: {measured}. {of_all}"


def numbers(experiment: Experiment, runs_of: RunsByName) -> dict[str, str]:
    """Return the numbers of the run that `plot_shipped` draws, by name; "not yet measured" without one."""
    runs = longest(runs_of[experiment.name])
    return {name: number(runs[0].history) if runs else NOT_MEASURED for name, number in NUMBERS.items()}


def _late(values):
    return statistics.mean(values[-LAST:])


def _reported_best(experiment):
    best = experiment.reported.best_val_accuracy
    return "no number" if best is None else f"{best:.4f}"


def _reported_difference(experiment, base):
    """Return the difference of the article's best accuracies, in points."""
    one, other = experiment.reported.best_val_accuracy, base.reported.best_val_accuracy
    return "no number of" if one is None or other is None else f"{100 * (one - other):.2f}"


def _first_at_base(runs, base_runs):
    return _first(runs[0].history, _late(base_runs[0].history["val_accuracy"])) if runs and base_runs else NOT_MEASURED


def _first(history, level):
    """Return the first epoch of at least this validation accuracy; values are rounded, as they are shown."""
    pairs = zip(history["epoch"], history["val_accuracy"], strict=True)
    return next((str(epoch) for epoch, value in pairs if round(value, 4) >= round(level, 4)), "none")


def _change(values):
    """Return the mean absolute change from one epoch to the next, in points."""
    changes = [abs(after - before) for before, after in itertools.pairwise(values)]
    return f"{100 * statistics.mean(changes):.1f}" if changes else NOT_MEASURED


NUMBERS: dict[str, Callable[[History], str]] = {
    "length": lambda history: str(len(history["epoch"])),
    "last": lambda history: f"{history['val_accuracy'][-1]:.4f}",
    "last_training": lambda history: f"{history['accuracy'][-1]:.4f}",
    "best": lambda history: f"{max(history['val_accuracy']):.4f}",
    "best_epoch": lambda history: str(best_of(history)[0]),
    "lowest_loss_epoch": lambda history: str(history["epoch"][_lowest(history["val_loss"])]),
    "training_there": lambda history: f"{history['accuracy'][_lowest(history['val_loss'])]:.4f}",
    "late": lambda history: f"{_late(history['val_accuracy']):.4f}",
    "late_training": lambda history: f"{_late(history['accuracy']):.4f}",
    "gap": lambda history: f"{100 * (_late(history['accuracy']) - _late(history['val_accuracy'])):+.1f}",
    "change_late": lambda history: _change(history["val_accuracy"][-LAST - 1 :]),
    "change_middle": lambda history: _change(_middle(history["val_accuracy"])),
    "gain_late": lambda history: f"{100 * (history['val_accuracy'][-1] - history['val_accuracy'][-4:][0]):+.1f}",
    "first_at_080": lambda history: _first(history, 0.8),
}
"""Numbers of a run, from its history: accuracies as fractions, differences of accuracies in points, of 0.01 each."""


def _lowest(values):
    return values.index(min(values))


def _middle(values):
    middle = len(values) // 2
    return values[max(0, middle - LAST) : middle + 1]


def _multiplications(experiment):
    return sum(
        kernel**2 * channels * filters * size**2 for kernel, channels, filters, size in experiment.convolutions()
    )
