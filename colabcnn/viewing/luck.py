"""What seeds differ by: the distribution of the last epoch, and what looking for the best epoch adds to it."""

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from colabcnn.errors import Error
from colabcnn.store.run_list import runs_by_name
from colabcnn.viewing.curves import COLOURS, Picture, shortened
from colabcnn.viewing.measured_runs import SHARED, MeasuredRun, read_or_reason

GOAL = 0.9
CONFIDENCE = 0.95
COLUMNS = (
    "experiment",
    "epochs",
    "seeds",
    "last epoch",
    "lowest",
    "highest",
    "ended at 0.90 or above",
    "first epoch at 0.90",
    "best of run",
    "best minus last",
)
_MARKERS = "osD^vP*X"


def epochs_at_goal(run: MeasuredRun, goal: float = GOAL) -> list[int]:
    """Return the epochs at a validation accuracy or above; a history holds 0.9 as a 32-bit number, so it is rounded."""
    history = run.history
    return [e for e, value in zip(history["epoch"], history["val_accuracy"], strict=True) if round(value, 6) >= goal]


def ended_at_goal(runs: Iterable[MeasuredRun]) -> int:
    """Return how many of the runs had this validation accuracy in their last epoch."""
    return sum(run.length in epochs_at_goal(run) for run in runs)


def with_deviation(values: Sequence[float]) -> str:
    """Return the mean, with the standard deviation if there are two values or more."""
    mean = f"{statistics.mean(values):.4f}"
    return f"{mean} ± {statistics.stdev(values):.4f}" if len(values) > 1 else mean


def seed_groups(folders: Iterable[str | Path | None]) -> dict[str, list[MeasuredRun]]:
    """Return the complete runs that differ in nothing but the seed, the device and the precision.

    Args:
        folders: as for `summarize`; of two runs of one seed the first counts. One that cannot be read is left out.

    Returns:
        A dict from the experiment's name, with the images if they are not all of CIFAR-10's, to its runs. If runs of
        one name have different settings, those with the most seeds come first, and the others have a number.
    """
    groups = {}
    for run_dirs in runs_by_name(folders).values():
        for run in map(read_or_reason, run_dirs):
            if isinstance(run, str) or not run.length or run.length < run.record.experiment.epochs:
                continue
            identity = run.record.identity()
            same = [
                (name, tuple(value) if isinstance(value, list) else value)
                for name, value in identity.items()
                if name not in ("seed", "precision")
            ]
            name = ", ".join([run.run_dir.parts[-2], *run.images_in_words()])
            groups.setdefault((name, run.length, *same), {}).setdefault(run.record.seed, run)
    named, numbers = {}, Counter()
    for (name, *_), by_seed in sorted(groups.items(), key=lambda item: (item[0][0], -len(item[1]))):
        numbers[name] += 1
        label = name if numbers[name] == 1 else f"{name}, other settings ({numbers[name]})"
        named[label] = list(by_seed.values())
    return named


def _shared_in_words(runs):
    """Return how many of the runs somebody shared, in brackets, or "": nobody here knows how those were made."""
    shared = sum(run.origin == SHARED for run in runs)
    return f" ({shared} {SHARED})" if shared else ""


def seed_rows(folders: Iterable[str | Path | None]) -> list[tuple[str, ...]]:
    """Return the rows of `COLUMNS`, one for each experiment with two complete runs or more."""
    return [_row(name, runs) for name, runs in seed_groups(folders).items() if len(runs) > 1]


def _row(name, runs):
    last = [run.history["val_accuracy"][-1] for run in runs]
    best = [max(run.history["val_accuracy"]) for run in runs]
    first = [epochs[0] for run in runs if (epochs := epochs_at_goal(run))]
    ended = ended_at_goal(runs)
    share = math.floor(100 * least_share(ended, len(runs)))
    reached = f"{min(first)} to {max(first)}" if len(set(first)) > 1 else str(first[0]) if first else "none"
    return (
        f"`{name}`",
        str(runs[0].length),
        f"{len(runs)}{_shared_in_words(runs)}",
        with_deviation(last),
        f"{min(last):.4f}",
        f"{max(last):.4f}",
        f"{ended} of {len(runs)}" + (f": at least {share} %" if share else ""),
        reached + (f" ({len(first)} of {len(runs)})" if 0 < len(first) < len(runs) else ""),
        with_deviation(best),
        f"{statistics.mean(best) - statistics.mean(last):+.4f}",
    )


def least_share(successes: int, count: int) -> float:
    """Return the share of all seeds that `successes` of `count` support: the lower end of its 95 % interval, one-sided.

    It is exact (Clopper and Pearson, Biometrika 26, 1934): with a smaller share, so many successes have a probability
    below 0.05. All of 3 support 0.37, all of 299 support 0.99.
    """
    low, high = 0.0, 1.0
    ways = {k: math.log(math.comb(count, k)) for k in range(successes, count + 1)}  # Too large for a float.
    for _ in range(50):
        share = (low + high) / 2
        found, missed = math.log(share), math.log1p(-share)
        chance = sum(math.exp(log + k * found + (count - k) * missed) for k, log in ways.items())
        low, high = (share, high) if chance < 1 - CONFIDENCE else (low, share)
    return low if successes else 0.0


def plot_luck(*folders: str | Path | None) -> Picture:
    """Draw what choosing the best epoch adds to the last one.

    Args:
        folders: as for `summarize`; complete runs are drawn.

    Returns:
        A `matplotlib.figure.Figure`. Left: the best of each run against its last epoch; on the line both are the same.
        Right: the expected maximum of the last k epochs, less the last epoch alone, over k: a mean over the seeds.

    Raises:
        Error: no run is complete.
    """
    groups = seed_groups(folders)
    if not groups:
        given = ", ".join(str(folder) for folder in folders if folder) or "no folder"
        raise Error(f"there is no complete run in {given}; train one to its last epoch.")
    labels = [
        f"{shortened(name, 100)}{f', {len(runs)} seeds' if len(runs) > 1 else ''}{_shared_in_words(runs)}"
        for name, runs in groups.items()
    ]
    # The legend is below the panels: with many names it would cover the points.
    legend_columns = 2 if max(map(len, labels)) <= 60 else 1
    figure = Picture(figsize=(10, 4.4 + 0.2 * math.ceil(len(groups) / legend_columns)), layout="constrained")
    scatter, growth = figure.subplots(1, 2)
    for number, (label, runs) in enumerate(zip(labels, groups.values(), strict=True)):
        values = [run.history["val_accuracy"] for run in runs]
        colour = COLOURS[number % len(COLOURS)]
        style = {"color": colour, "marker": _MARKERS[number % len(_MARKERS)], "markersize": 5, "linestyle": ""}
        scatter.plot([v[-1] for v in values], [max(v) for v in values], label=label, **style)
        highest = [itertools.accumulate(reversed(v), max) for v in values]  # Of the last 1, 2, ... epochs.
        added = [statistics.mean(most) - statistics.mean(v[-1] for v in values) for most in zip(*highest, strict=True)]
        growth.plot(range(1, len(added) + 1), added, color=colour, linewidth=1.2)
        growth.plot(len(added), added[-1], **style)
    ends = [min(scatter.get_xlim()[0], scatter.get_ylim()[0]), max(scatter.get_xlim()[1], scatter.get_ylim()[1])]
    scatter.plot(ends, ends, color="#555555", linewidth=1, linestyle=":")
    scatter.set(xlabel="validation accuracy of the last epoch", ylabel="best of run")
    figure.legend(loc="outside lower center", ncols=legend_columns, fontsize=8)
    growth.set(xscale="log", xlabel="last epochs among which the best is chosen")
    growth.set(ylabel="expected maximum minus last epoch")
    growth.xaxis.set_major_formatter("{x:g}")
    for axes in (scatter, growth):
        axes.grid(alpha=0.25)
    return figure
