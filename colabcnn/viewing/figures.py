"""The pictures that go with the table of `summary`."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from colabcnn.errors import Error
from colabcnn.experiments.catalog import ABLATIONS, EXPERIMENTS, RECIPES
from colabcnn.store.files import expand
from colabcnn.store.history import History, best_of
from colabcnn.store.run_list import runs_by_name
from colabcnn.viewing.curves import COLOURS, Picture, plot_curves, save_figure
from colabcnn.viewing.luck import epochs_at_goal, plot_luck, seed_groups
from colabcnn.viewing.measured_runs import MeasuredRun, longest, read_measured_run

_FINAL = ABLATIONS["06_final"]
_LINE_STYLES = ("-", "--", "-.", ":")
BEST_SPAN = 25  # So many epochs on either side of the best one.
_GOALS = {0.90: "o", 0.92: "s", 0.93: "D"}
# From this ratio on the largest of several values would leave no room for the smallest on a linear axis.
_LOGARITHMIC_FROM = 10


def save_figures(results: str | Path, folder: str | Path) -> list[Path]:
    """Draw the article's pictures of the last measured experiment, two of all, two of the recipes, one on luck.

    Args:
        results: a folder as for `summarize`. Of several runs of an experiment the longest is drawn, and the first of
            equally long ones; one on other images than all of CIFAR-10's only if there is no other, with a label.
        folder: where the pictures go; made if missing.

    Returns:
        The paths, where there are runs for them: of that run the loss, the accuracy, the accuracy enlarged, and
        enlarged around the best epoch with a line at 0.9; the validation accuracy of all experiments; the seconds of
        their epochs; the validation accuracy of the recipes against epochs and against minutes, and the epochs to
        some accuracies; the best epoch of all complete runs against the last one.

    Raises:
        Error: there is no run, or a file cannot be read or written.
    """
    run_dirs = runs_by_name([results])
    chosen = [run for name in ABLATIONS for run in _longest_of(run_dirs, name)[:1]]
    figures = {}
    if chosen:
        last = chosen[-1]
        figures |= {name: plot_curves(last.run_dir, **view) for name, view in article_views(last.history).items()}
        figures["validation"] = _one_line_a_run(chosen, "val_accuracy", "validation accuracy", _name)
    if timed := [run for run in chosen if run.is_timed]:
        figures["seconds"] = _seconds(timed)
    if any(_by_device(run_dirs, name) for name in RECIPES):
        figures |= {"recipes": draw_recipes(run_dirs), "epochs-to": draw_epochs_to(run_dirs)}
    if seed_groups([results]):
        figures["luck"] = plot_luck(results)
    if not figures:
        raise Error(f"{results} holds no run of {', '.join(EXPERIMENTS)}; train one first.")
    folder = expand(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Error(f"{folder} cannot be made ({error.strerror}); expected a folder for the pictures.") from None
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        save_figure(figure, paths[-1])
    return paths


def article_views(history: History) -> dict[str, dict]:
    """Return the four pictures in which the article shows its result, as options of `plot_curves`."""
    names = ("loss", "accuracy", "enlarged", "around-the-best")
    views: dict[str, dict[str, Any]] = {name: {"metric": "accuracy"} for name in names}
    views["loss"] = {"metric": "loss"}
    if history["epoch"]:
        (best, value), last = best_of(history), history["epoch"][-1]
        # The line at 0.9 belongs into the picture only where the run comes near it.
        highest = min(1.0, value + 0.02)
        highest, line = (max(0.91, highest), 0.9) if value > 0.85 else (highest, None)
        views["enlarged"] |= {"value_range": (max(0.0, value - 0.15), min(1.0, value + 0.1))}
        views["around-the-best"] |= {"value_range": (max(0.0, value - 0.03), highest), "line": line}
        views["around-the-best"] |= {"epochs": (max(1, best - BEST_SPAN), max(2, min(last, best + BEST_SPAN)))}
    return views


def _seconds(runs):
    figure = _one_line_a_run(runs, "seconds", "seconds per epoch", lambda run: _label(run, (run,)))
    (axes,) = figure.axes
    # Logarithmic for single long epochs, too: on a linear axis one pause hides all differences.
    if _is_wide([seconds for run in runs for seconds in run.history["seconds"] if seconds > 0]):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.set_ylim(bottom=0)
    return figure


def _one_line_a_run(runs: list[MeasuredRun], column: str, label: str, name: Callable[[MeasuredRun], str]) -> Picture:
    figure = Picture(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    for colour, run in zip(COLOURS, runs, strict=False):
        # Hundreds of markers would hide the line.
        style: dict[str, Any] = {"marker": ".", "linewidth": 1.5} if run.length <= 50 else {"linewidth": 0.9}
        axes.plot(run.history["epoch"], run.history[column], color=colour, label=name(run), **style)
    if _is_wide([run.length for run in runs]):
        _make_logarithmic(axes)
    else:
        axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    axes.set(xlabel="epoch", ylabel=label)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    return figure


def _is_wide(values):
    return bool(values) and max(values) > _LOGARITHMIC_FROM * min(values)


def _make_logarithmic(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")


def _name(run):
    return ", ".join([run.run_dir.parts[-2], *run.images_in_words()])


def _label(run, runs):
    """Return the name and the devices of a run, for all runs that share its line."""
    seeds = f", {len(runs)} seeds" if len(runs) > 1 else ""
    return f"{_name(run)}{seeds}: {'; '.join(run.devices)}"


def _read(run_dirs, name):
    """Return the runs of a name, and those of them on all images of CIFAR-10."""
    runs = [run for run in map(read_measured_run, run_dirs.get(name, ())) if run is not None]
    return runs, [run for run in runs if not run.images_in_words()]


def _longest_of(run_dirs, name):
    """Return the longest runs of a name; short trials on few images only if there are no others."""
    runs, on_all_images = _read(run_dirs, name)
    return longest(on_all_images or runs)


def _by_device(run_dirs, name):
    """Return the runs of a name on all images of CIFAR-10, by device."""
    _, runs = _read(run_dirs, name)
    by_device = {}
    for run in longest(runs) if name in ABLATIONS else runs:
        by_device.setdefault(tuple(run.devices), []).append(run)
    return by_device


def draw_recipes(run_dirs: dict[str, list[Path]]) -> Picture:
    """Draw the recipes beside the experiment whose network they train: by epochs, and by minutes.

    Args:
        run_dirs: as `runs_by_name` returns them; those on all images of CIFAR-10 are drawn, of the experiment the
            longest of them.

    Returns:
        A `matplotlib.figure.Figure`: the validation accuracy of each run, with a colour for each name and a line style
        for each of its devices, and the article's best epoch as a star, at the seconds per epoch that it reports. A run
        beside other work has no line by minutes.
    """
    figure = Picture(figsize=(10, 5.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for colour, name in zip(COLOURS, (_FINAL.name, *RECIPES), strict=False):
        for style, runs in zip(itertools.cycle(_LINE_STYLES), _by_device(run_dirs, name).values(), strict=False):
            for run in runs:
                line = {"color": colour, "linestyle": style, "linewidth": 1.2 if run.length <= 100 else 0.7}
                line["label"] = _label(run, runs) if run is runs[0] else None
                minutes = [seconds / 60 for seconds in itertools.accumulate(run.history["seconds"])]
                shown = (run.history["epoch"], minutes) if run.is_timed else (run.history["epoch"],)
                for axes, elapsed in zip(panels, shown, strict=False):
                    axes.plot(elapsed, run.history["val_accuracy"], **line)
    _draw_articles_best(panels)
    for axes, unit in zip(panels, ("epoch", "minutes"), strict=True):
        axes.axhline(0.9, color="#555555", linewidth=1, linestyle=":")
        _make_logarithmic(axes)
        axes.set_xlabel(unit)
        axes.grid(alpha=0.25)
    panels[0].set(ylabel="validation accuracy", ylim=(0.5, 0.95))
    figure.legend(*panels[0].get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=2)
    return figure


def draw_epochs_to(run_dirs: dict[str, list[Path]]) -> Picture:
    """Draw after how many epochs each run first had a validation accuracy of 0.90, 0.92 and 0.93.

    Args:
        run_dirs: as for `draw_recipes`.

    Returns:
        A `matplotlib.figure.Figure`: a row for each name, a mark for each run and each of the accuracies that it had.
    """
    by_name = {name: [*itertools.chain(*_by_device(run_dirs, name).values())] for name in (_FINAL.name, *RECIPES)}
    by_name = {name: runs for name, runs in by_name.items() if runs}
    figure = Picture(figsize=(8, 1.4 + 0.8 * len(by_name)), layout="constrained")
    axes = figure.subplots()
    for row, runs in enumerate(by_name.values()):
        for (goal, marker), colour, height in zip(_GOALS.items(), COLOURS, (row - 0.25, row, row + 0.25), strict=False):
            first = [epochs[0] for run in runs if (epochs := epochs_at_goal(run, goal))]
            style = {"color": colour, "marker": marker, "markersize": 6, "linestyle": "", "alpha": 0.6}
            axes.plot(first, [height] * len(first), label=f"{goal:.2f}" if not row else None, **style)
            count = f"{goal:.2f}: {len(first)} of {len(runs)}"
            axes.text(1.01, height, count, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    _make_logarithmic(axes)
    lengths = {name: max(run.length for run in runs) for name, runs in by_name.items()}
    labels = [f"{name}\n{length} epochs" for name, length in lengths.items()]
    axes.set_yticks(range(len(by_name)), labels)
    limits = {"xlim": (1, 1.1 * max(_FINAL.epochs, *lengths.values())), "ylim": (len(by_name) - 0.5, -0.5)}
    axes.set(**limits, xlabel="epochs to this validation accuracy")
    axes.grid(axis="x", alpha=0.25)
    axes.legend(fontsize=8, loc="upper left")
    return figure


def _draw_articles_best(panels):
    article = _FINAL.reported
    assert article.best_epoch and article.epoch_seconds  # The article gives both of this experiment.
    star = {"color": COLOURS[-1], "marker": "*", "markersize": 12, "linestyle": ""}
    star["label"] = f"the article's best: epoch {article.best_epoch}, of {article.epoch_seconds:g} s, Colab 2018"
    minutes = article.best_epoch * article.epoch_seconds / 60
    for axes, elapsed in zip(panels, (article.best_epoch, minutes), strict=True):
        axes.plot(elapsed, article.best_val_accuracy, **star)
