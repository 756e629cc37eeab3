"""The tables about the runs in `results/`, as Markdown: every number in them is computed here.

Accuracies are pooled over devices and precisions; seconds never are. Only complete runs on all of CIFAR-10 are used,
and of each experiment only the longest.
"""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from colabcnn import Error
from colabcnn.experiments.catalog import ABLATIONS, EXPERIMENTS, RECIPES
from colabcnn.experiments.experiment import Experiment
from colabcnn.store.history import best_of
from colabcnn.store.run_list import runs_by_name
from colabcnn.store.run_record import first_difference, identity_of
from colabcnn.viewing.luck import ended_at_goal, epochs_at_goal, with_deviation
from colabcnn.viewing.measured_runs import MeasuredRun, longest, read_measured_run, seconds_in_words
from colabcnn.viewing.table import as_table

RunsByName = Mapping[str, Sequence[MeasuredRun]]
"""The runs of each experiment, by its name."""
NOT_MEASURED = "not yet measured"
FIRST_TRY = "07_rate_that_falls_at_once"
_ACCURACY_COLUMNS = ("epochs", "seeds", "last epoch", "best of run")


def read_results(
    folder: Path, experiments: Mapping[str, Experiment | None] = EXPERIMENTS, held_out: bool = False
) -> RunsByName:
    """Return the runs of experiments in a folder of `<name>/seed-<n>/`, by name and seed.

    Args:
        folder: the folder.
        experiments: the experiment that the runs of each name must have; None takes any settings.
        held_out: whether the runs may be validated on training images that were held out.

    Returns:
        A dict from each of the names to its runs, an empty list if there is none.

    Raises:
        Error: a run is not complete, or not of that experiment, or not on all of CIFAR-10.
    """
    folders, runs_of = runs_by_name([folder]), {}
    for name, experiment in experiments.items():
        runs_of[name] = [read_measured_run(run_dir) for run_dir in folders.get(name, ())]
        for run_dir, run in zip(folders.get(name, ()), runs_of[name], strict=True):
            if reason := _why_unusable(run, experiment, held_out):
                raise Error(f"{run_dir} {reason}; otherwise keep it elsewhere.")
    return runs_of


def _why_unusable(run, experiment, held_out):
    """Return why a run is no result of `experiment` (None takes any settings), or ""."""
    if run is None:
        return "is no run that can be read"
    own = run.record.experiment
    if experiment and (difference := first_difference(identity_of(own), identity_of(experiment))):
        name, found, expected = difference
        return f"has {name} {found!r}; expected {expected!r}, as {experiment.name} has"
    if run.length != own.epochs:
        return f"has {run.length} epochs; expected all of its {own.epochs}"
    if run.images_in_words() and not (held_out and run.record.holdout):
        return f"has {', '.join(run.images_in_words())}; expected all training images, validated on the test set"
    return ""


def experiments_table() -> str:
    """Return the settings and the article's result of each of its experiments, a row for each."""
    columns = ("experiment", "kernels in a set", "dropout", "augmentation", "the article reports")
    rows = []
    for name, experiment in ABLATIONS.items():
        kernels = ", ".join(f"{size}x{size}" for size in experiment.kernel_sizes)
        dropout = f"{experiment.dropout:.2f}" if experiment.dropout else "none"
        augmentation = _augmentation_in_words(experiment.augmentation)
        rows.append((f"`{name}`", kernels, dropout, augmentation, experiment.reported.in_words()))
    return as_table(columns, rows)


def summary_table(runs_of: RunsByName) -> str:
    """Return the article's results of its experiments and the measured ones in short, a row for each."""
    rows = [
        (f"`{name}`", experiment.reported.in_words(), *_accuracy_cells(longest(runs_of[name])))
        for name, experiment in ABLATIONS.items()
    ]
    return as_table(("experiment", "the article reports", *_ACCURACY_COLUMNS), rows)


def complete_summary_table(runs_of: RunsByName, names: Iterable[str] = EXPERIMENTS) -> str:
    """Return everything measured about the runs of these experiments, a row for each."""
    rows = []
    for name in names:
        runs = longest(runs_of[name])
        rows.append((f"`{name}`", *_accuracy_cells(runs), flip_averaged_mean(runs), seconds_in_table(runs)))
    return as_table(("experiment", *_ACCURACY_COLUMNS, "flip averaged", "seconds per epoch"), rows)


def recipes_table(runs_of: RunsByName) -> str:
    """Return the last epochs of each recipe's runs, how many reached the goal, and their durations on each device."""
    columns = (
        "recipe",
        "epochs",
        "last epoch",
        "lowest to highest",
        "ended at 0.90 or above",
        "duration without other work",
    )
    rows = []
    for name, experiment in RECIPES.items():
        runs = runs_of[name]
        if not runs:
            rows.append((f"`{name}`", str(experiment.epochs), NOT_MEASURED, "", "", ""))
            continue
        last = last_epochs(runs)
        durations = by_device((run, {device: sum(run.history["seconds"])}) for run in runs for device in _only(run))
        took = "; ".join(f"{duration_in_words(seconds)} on {device}" for device, seconds in durations.items())
        at_goal = f"{ended_at_goal(runs)} of {len(runs)}"
        rows.append((f"`{name}`", str(experiment.epochs), with_deviation(last), _spread(last), at_goal, took))
    return as_table(columns, rows)


def first_try_table(tried: RunsByName, runs_of: RunsByName) -> str:
    """Return the first try of `07_without_luck` beside the recipe, both of seed 0."""
    runs = [run for run in (*tried[FIRST_TRY], *runs_of["07_without_luck"]) if run.record.seed == 0]
    rows = [
        (f"`{run.run_dir.parts[-2]}`", f"{last_epochs([run])[0]:.4f}", flip_averaged_mean([run]), str(run.length))
        for run in runs
    ]
    return as_table(("seed 0 of", "last epoch", "flip averaged", "epochs"), rows)


def fewest_epochs_table(runs_by_length: Mapping[int, Sequence[MeasuredRun]]) -> str:
    """Return the last epochs of `08_in_minutes` and of the same training in fewer epochs, by the number of epochs."""
    rows = []
    for length, runs in sorted(runs_by_length.items(), reverse=True):
        if runs:
            rows.append((str(length), *_ingredient_cells(runs), _spread(last_epochs(runs))))
    return as_table(("epochs", "seeds", "last epoch", "flip averaged", "lowest to highest"), rows)


def ingredients_table(runs_of: RunsByName, recipe: str, in_words: Mapping[str, str]) -> str:
    """Return what each ingredient adds to the accuracy of a recipe, beside the spread of its seeds.

    Args:
        runs_of: the recipe's runs, and those without an ingredient, by name.
        recipe: the recipe's name.
        in_words: for each of the other names, what differs.

    Returns:
        A sentence and a table. A difference is the mean over the seeds that both have. For n such seeds it is clear
        from 2 s sqrt(2 / n) on, with the standard deviation s of the recipe's seeds.
    """
    last = {run.record.seed: run.history["val_accuracy"][-1] for run in runs_of[recipe]}
    deviation = statistics.stdev(last.values()) if len(last) > 1 else None
    rows: list[tuple[str, ...]] = [(f"`{recipe}`", "nothing", *_ingredient_cells(runs_of[recipe]), "", "")]
    for name, words in in_words.items():
        pairs = [run for run in runs_of[name] if run.record.seed in last]
        if not pairs:
            rows.append((f"`{name}`", words, NOT_MEASURED, *[""] * 4))
            continue
        difference = statistics.mean(run.history["val_accuracy"][-1] - last[run.record.seed] for run in pairs)
        if deviation is None:
            effect = ""
        elif abs(difference) < 2 * deviation * (2 / len(pairs)) ** 0.5:
            effect = "no clear difference"
        else:
            effect = "lower" if difference < 0 else "higher"
        rows.append((f"`{name}`", words, *_ingredient_cells(pairs), f"{difference:+.4f}", effect))
    columns = ("experiment", "what is different", "seeds", "last epoch", "flip averaged", "difference", "effect")
    sentence = ""
    if deviation is not None:
        spread = max(last.values()) - min(last.values())
        sentence = f"The {len(last)} seeds of `{recipe}` differ by up to {spread:.4f}, "
        sentence += f"with a standard deviation of {deviation:.4f}.\n\n"
    return sentence + as_table(columns, rows)


def final_table(runs_of: RunsByName) -> str:
    """Return the runs of `06_final` that are as long as the article's, beside the article's own results."""
    experiment = ABLATIONS["06_final"]
    runs = [run for run in runs_of[experiment.name] if run.length == experiment.epochs]
    if not runs:
        return f"A run of `{experiment.name}` of {experiment.epochs} epochs is {NOT_MEASURED}."
    # Some numbers come from the article's text, since `reported` has no field for them: 0.90 was reached once.
    article = experiment.reported
    best = f"{article.best_val_accuracy:.4f} (epoch {article.best_epoch})"
    rows = [
        ("best of run", best, *(_best_of([run]) for run in runs)),
        ("epochs at 0.90 or above", "1", *(str(len(epochs_at_goal(run))) for run in runs)),
        ("the first of them", str(article.best_epoch), *(str(next(iter(epochs_at_goal(run)), "none")) for run in runs)),
        ("last epoch", "below 0.90", *(f"{run.history['val_accuracy'][-1]:.4f}" for run in runs)),
        ("mean of the last 50", "", *(f"{statistics.mean(run.history['val_accuracy'][-50:]):.4f}" for run in runs)),
        ("training, last epoch", "near 0.96", *(f"{run.history['accuracy'][-1]:.4f}" for run in runs)),
        ("seconds per epoch", f"{article.epoch_seconds:g}, Colab 2018", *(seconds_in_table([run]) for run in runs)),
    ]
    columns = (f"{experiment.epochs} epochs", "the article", *(f"seed {run.record.seed}" for run in runs))
    return as_table(columns, rows)


def longer_runs_table(runs: Sequence[MeasuredRun]) -> str:
    """Return the last epoch of runs that are longer than `08_in_minutes`, by the images that they are validated on."""
    rows = []
    for run in runs:
        training, last = (f"{run.history[name][-1]:.4f}" for name in ("accuracy", "val_accuracy"))
        on_test_set = ("", last) if not run.record.holdout else (last, "")
        rows.append((f"`{run.record.experiment.name}`", str(run.length), training, *on_test_set))
    return as_table(("experiment", "epochs", "training", "held out", "test set"), rows)


def devices_table(runs_of: RunsByName) -> str:
    """Return what the runs of each experiment were trained on, and with which versions, a row for each combination."""
    rows = []
    for name in EXPERIMENTS:
        seeds_by_device: dict[tuple[str, ...], list[str]] = {}
        for run in runs_of[name]:
            versions = run.record.starts[-1].versions
            in_words = ", ".join(
                f"{of} {versions[of]}" for of in ("colabcnn", "keras", "tensorflow", "jax") if of in versions
            )
            trained_on = (", then ".join(run.devices), run.record.precision, in_words)
            seeds_by_device.setdefault(trained_on, []).append(str(run.record.seed))
        rows += [(f"`{name}`", ", ".join(seeds), *trained_on) for trained_on, seeds in seeds_by_device.items()]
    return as_table(("experiment", "seed", "device", "precision", "versions"), rows)


def resumed_sentences(runs_of: RunsByName) -> str:
    """Return one sentence for each interrupted run: the epochs in which it was resumed."""
    lines = []
    for name in EXPERIMENTS:
        for run in runs_of[name]:
            epochs = [str(start.first_epoch) for start in run.record.starts[1:]]
            if epochs:
                lines.append(f"- `{name}`, seed {run.record.seed}, was resumed in epoch {', '.join(epochs)}.")
    return "\n".join(lines) or "No run was interrupted."


def weights_sentences(runs_of: RunsByName) -> str:
    """Return one sentence for each run whose weights are shipped: how many test images they classify correctly."""
    lines = []
    for name in EXPERIMENTS:
        for run in runs_of[name]:
            path = run.run_dir / "weights.json"
            if path.exists():
                right = json.loads(path.read_text(encoding="utf-8"))
                accuracy = right["float16"] / right["images"]
                lines.append(
                    f"`{name}`, seed {run.record.seed}, computed in float32: the weights as they are stored, in half "
                    f"precision, are right on {right['float16']:,} of {right['images']:,} test images, an accuracy of "
                    f"{accuracy:.4f}; in full precision they are right on {right['float32']:,}. The run computed in "
                    f"{run.record.precision}: its last epoch had {run.history['val_accuracy'][-1]:.4f}."
                )
    return "\n\n".join(lines) or "No weights are shipped yet."


def last_epochs(runs: Sequence[MeasuredRun]) -> list[float]:
    """Return the validation accuracy of each run's last epoch."""
    return [run.history["val_accuracy"][-1] for run in runs]


def flip_averaged_mean(runs: Sequence[MeasuredRun]) -> str:
    """Return the mean flip averaged accuracy of the last epochs, with the number of values if some are missing."""
    values = [value for run in runs if (value := run.flip_averaged()) is not None]
    if not values:
        return ""
    return f"{statistics.mean(values):.4f}" + (f" ({len(values)} of {len(runs)})" if len(values) < len(runs) else "")


def seconds_in_table(runs: Sequence[MeasuredRun]) -> str:
    """Return the seconds of an epoch on each device and in each precision, from the fastest run to the slowest."""
    seconds = by_device((run, run.seconds_by_device()) for run in runs)
    return "; ".join(f"{_range(values)} on {device}" for device, values in seconds.items())


def duration_in_words(seconds: Sequence[float]) -> str:
    """Return the shortest and the longest duration; the longest decides the unit: seconds, minutes or hours."""
    unit, divisor = ("s", 1) if max(seconds) < 120 else ("min", 60) if max(seconds) < 7200 else ("h", 3600)
    return f"{_range([value / divisor for value in seconds])} {unit}"


def by_device(runs: Iterable[tuple[MeasuredRun, Mapping[str, float]]]) -> dict[str, list[float]]:
    """Return the seconds of runs by device and precision, given each run with its seconds by device.

    Runs beside other work are left out.
    """
    found = {}
    for run, seconds in runs:
        for device, value in seconds.items() if run.is_timed else ():
            found.setdefault(f"{device}, {run.record.precision}", []).append(value)
    return found


def _only(run):
    """Return the device of a run that was trained on only one, as a list, else an empty list."""
    return run.devices if len(run.devices) == 1 else []


def _range(values):
    low, high = seconds_in_words(min(values)), seconds_in_words(max(values))
    return low if low == high else f"{low} to {high}"


def _augmentation_in_words(augmentation):
    if augmentation is None:
        return "none"
    shifted = augmentation.width_shift_range or augmentation.height_shift_range
    parts = {
        "rotation": augmentation.rotation_range,
        "shifts": shifted,
        "flip": augmentation.horizontal_flip,
        "channel shift": augmentation.channel_shift_range,
    }
    return ", ".join(part for part, used in parts.items() if used)


def _accuracy_cells(runs):
    """Return the cells of `_ACCURACY_COLUMNS` for runs of one length."""
    if not runs:
        return NOT_MEASURED, "", "", ""
    return str(runs[0].length), str(len(runs)), with_deviation(last_epochs(runs)), _best_of(runs)


def _best_of(runs):
    best = max(runs, key=lambda run: max(run.history["val_accuracy"]))
    seed = f", seed {best.record.seed}" if len(runs) > 1 else ""
    epoch, accuracy = best_of(best.history)
    return f"{accuracy:.4f} (epoch {epoch}{seed})"


def _spread(values):
    low, high = f"{min(values):.4f}", f"{max(values):.4f}"
    return f"{low} to {high}" if low != high else ""


def _ingredient_cells(runs):
    return str(len(runs)), with_deviation(last_epochs(runs)), flip_averaged_mean(runs)
