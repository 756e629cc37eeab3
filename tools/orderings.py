"""The article's orderings of its experiments, and whether the runs in `results/` reproduce them."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from colabcnn.experiments.catalog import ABLATIONS
from colabcnn.viewing.measured_runs import MeasuredRun, longest
from colabcnn.viewing.table import as_table
from result_tables import NOT_MEASURED, RunsByName

# The mean is over so many last epochs: at a constant learning rate a single epoch is mostly chance.
LAST = 5


@dataclass(frozen=True)
class Ordering:
    """A finding of the article: `first` is `relation` `second`.

    Args:
        first, second: names of experiments.
        relation: "above", "below" or "not below".
    """

    first: str
    second: str
    relation: str

    def in_words(self) -> str:
        """Return the ordering in a few words, such as "02 above 01"."""
        return f"{self.first[:2]} {self.relation} {self.second[:2]}"


ORDERINGS = (
    Ordering("02_augmentation", "01_descending_kernels", "above"),
    Ordering("03_dropout_20", "02_augmentation", "above"),
    Ordering("04_dropout_50", "03_dropout_20", "below"),
    Ordering("05_ascending_kernels", "03_dropout_20", "above"),
    Ordering("06_final", "05_ascending_kernels", "not below"),
)


@dataclass(frozen=True)
class Difference:
    """The difference of the validation accuracies of two experiments, first minus second.

    Args:
        last, best, mean: of the last epoch, of the best, and of the mean of the last five; each a mean over seeds.
        noise: the standard deviation of a single epoch's difference. Its variance is the sum of both experiments'
            variances over the last five epochs of all seeds, each divided by the number of seeds.
    """

    last: float
    best: float
    mean: float
    noise: float


def compared_runs(runs_of: RunsByName, first: str, second: str) -> tuple[int, list[MeasuredRun], list[MeasuredRun]]:
    """Return the largest number of epochs that both experiments have, and their runs of that length or longer.

    The learning rate is constant, so a longer run begins with the same epochs as a shorter one.
    """
    length = min(max((run.length for run in runs_of[name]), default=0) for name in (first, second))
    first_runs, second_runs = ([run for run in runs_of[name] if run.length >= length] for name in (first, second))
    return length, first_runs, second_runs


def difference(length: int, first: Sequence[MeasuredRun], second: Sequence[MeasuredRun]) -> Difference:
    """Return the difference between the first `length` epochs of two experiments' runs."""
    last, best, mean, noise = zip(*(_statistics(length, runs) for runs in (first, second)), strict=True)
    return Difference(last[0] - last[1], best[0] - best[1], mean[0] - mean[1], sum(noise) ** 0.5)


def verdict(relation: str, found: Difference) -> str:
    """Return whether a difference reproduces the article's finding.

    If last, best and mean do not all have the same sign, there is no clear difference. Otherwise the sign decides, and
    a mean within the noise is marked.
    """
    sign = -1 if relation == "below" else 1
    values = [sign * value for value in (found.last, found.best, found.mean)]
    if min(values) <= 0 <= max(values):
        return "no clear difference"
    within = ", within the noise" if abs(found.mean) <= found.noise else ""
    return ("reproduced" if values[0] > 0 else "not reproduced") + within


def orderings_table(runs_of: RunsByName) -> str:
    """Return the article's orderings beside the measured differences, a row for each."""
    rows, lengths = [], set()
    for ordering in ORDERINGS:
        length, first, second = compared_runs(runs_of, ordering.first, ordering.second)
        if not length:
            rows.append((ordering.in_words(), NOT_MEASURED, *[""] * 6))
            continue
        found = difference(length, first, second)
        lengths.add(length)
        seeds = str(len(first)) if len(first) == len(second) else f"{len(first)} and {len(second)}"
        values = (f"{value:+.4f}" for value in (found.last, found.best, found.mean))
        cells = (_epochs_in_words(length, first, second), seeds, *values, f"{found.noise:.4f}")
        rows.append((ordering.in_words(), *cells, verdict(ordering.relation, found)))
    after = f"after {lengths.pop()} epochs" if len(lengths) == 1 else "after these epochs"
    columns = ("the article", "epochs", "seeds", "last epoch", "best epoch", "mean of the last five", "noise", after)
    return as_table(columns, rows)


def training_table(runs_of: RunsByName, names: Iterable[str] = ABLATIONS) -> str:
    """Return training and validation accuracy, the mean of the last five epochs, a row for each experiment."""
    rows = []
    for name in names:
        runs = longest(runs_of[name])
        if not runs:
            rows.append((f"`{name}`", NOT_MEASURED, *[""] * 4))
            continue
        training, validation = (
            statistics.mean(value for run in runs for value in run.history[column][-LAST:])
            for column in ("accuracy", "val_accuracy")
        )
        values = f"{training:.4f}", f"{validation:.4f}", f"{training - validation:+.4f}"
        rows.append((f"`{name}`", str(runs[0].length), str(len(runs)), *values))
    return as_table(("experiment", "epochs", "seeds", "training", "validation", "training minus validation"), rows)


def _epochs_in_words(length, first, second):
    longer = [f"{run.run_dir.parts[-2][:2]}'s {run.length}" for run in (*first, *second) if run.length > length]
    return f"{length}, the first of {' and '.join(dict.fromkeys(longer))}" if longer else str(length)


def _statistics(length, runs):
    """Return the last epoch, the best, the mean of the last five, and the variance of their mean over seeds."""
    values = [run.history["val_accuracy"][:length] for run in runs]
    late = [value for run_values in values for value in run_values[-LAST:]]
    variance = statistics.variance(late) / len(runs) if len(late) > 1 else 0.0
    last, best = (statistics.mean(choose(run_values) for run_values in values) for choose in (lambda v: v[-1], max))
    return last, best, statistics.mean(late), variance
