"""The pictures that go with the table of `summary`."""

import itertools
from pathlib import Path

from colabcnn.ablations import ABLATIONS
from colabcnn.errors import Error
from colabcnn.history import read_history
from colabcnn.plots import COLOURS, Picture, plot_curves, save_figure
from colabcnn.recipes import EXPERIMENTS, RECIPES
from colabcnn.summary import devices_of, read_run, runs_by_name
from colabcnn.views import article_views


def save_figures(results, folder):
    """Draw the article's pictures of the last experiment that was measured, two of all of them, one of the recipes.

    Args:
        results: a folder as for `summarize`.
        folder: where the pictures go; made if missing.

    Returns:
        The paths, where there are runs for them: of that run the loss, the accuracy, the accuracy enlarged, and
        enlarged around the best epoch with a line at 0.9; the validation accuracy of all experiments; the seconds of
        their epochs; the validation accuracy of the recipes against epochs and against minutes.

    Raises:
        Error: there is no run, or a file cannot be read or written.
    """
    runs = runs_by_name([results])
    chosen = [run_dir for name in ABLATIONS for run_dir in runs.get(name, ())[:1]]
    figures = {}
    if chosen:
        views = article_views({"": read_history(chosen[-1] / "history.csv")})
        figures |= {name.replace(" ", "-"): _in_view(chosen[-1], view) for name, view in views.items()}
        figures |= {"validation": _validation(chosen), "seconds": _seconds(chosen)}
    if any(_on_test_set(runs, name) for name in RECIPES):
        figures["recipes"] = draw_recipes(runs)
    if not figures:
        raise Error(f"{results} holds no run of {', '.join(EXPERIMENTS)}; train one first.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        save_figure(figure, paths[-1])
    return paths


def _in_view(run_dir, view):
    return plot_curves(run_dir, metric=view.metric, epochs=view.epochs, value_range=view.value_range, line=view.line)


def _validation(run_dirs):
    return _one_line_a_run(run_dirs, lambda history: history["val_accuracy"], "validation accuracy")


def _seconds(run_dirs):
    figure = _one_line_a_run(run_dirs, lambda history: history["seconds"], "seconds an epoch")
    figure.axes[0].set_ylim(bottom=0)
    return figure


def _one_line_a_run(run_dirs, values, label):
    figure = Picture(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    for colour, run_dir in zip(COLOURS, run_dirs, strict=False):
        history = read_history(run_dir / "history.csv")
        axes.plot(history["epoch"], values(history), color=colour, marker=".", label=run_dir.parts[-2])
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    return figure


def _on_test_set(runs, name):
    """Return what `read_run` returns, by folder, of the runs of that name that were validated on the whole test set."""
    whole = {"holdout": 0, "data": "cifar10", "val_size": 10_000}
    of_name = {run_dir: read_run(run_dir) or {} for run_dir in runs.get(name, ())}
    return {run_dir: run for run_dir, run in of_name.items() if whole == {key: run.get(key) for key in whole}}


def draw_recipes(runs):
    """Draw the recipes beside the experiment whose network they train: by epochs, and by minutes.

    Args:
        runs: as `runs_by_name` returns them; those validated on the whole test set are drawn.

    Returns:
        A `matplotlib.figure.Figure`: the validation accuracy of each run, named with their devices, and the article's
        best epoch as a star, at the seconds an epoch that it reports.
    """
    final = ABLATIONS["06_final"]
    figure = Picture(figsize=(10, 4.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for colour, name in zip(COLOURS, (final.name, *RECIPES), strict=False):
        drawn = _on_test_set(runs, name)
        devices = dict.fromkeys(devices_of(run) for run in drawn.values())
        seeds = f", {len(drawn)} seeds" if len(drawn) > 1 else ""
        for number, run_dir in enumerate(drawn):
            history = read_history(run_dir / "history.csv")
            minutes = [seconds / 60 for seconds in itertools.accumulate(history["seconds"])]
            label = None if number else f"{name}{seeds}: {'; '.join(devices)}"
            for axes, passed in zip(panels, (history["epoch"], minutes), strict=True):
                axes.plot(passed, history["val_accuracy"], color=colour, linewidth=1.2, label=label)
    told = final.reported
    article = {"color": COLOURS[-1], "marker": "*", "markersize": 12, "linestyle": ""}
    article["label"] = f"the article's best: epoch {told.best_epoch}, of {told.epoch_seconds:g} s, Colab 2018"
    minutes = told.best_epoch * told.epoch_seconds / 60
    for axes, passed, unit in zip(panels, (told.best_epoch, minutes), ("epoch", "minutes"), strict=True):
        axes.plot(passed, told.best_val_accuracy, **article)
        axes.axhline(0.9, color="#555555", linewidth=1, linestyle=":")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel(unit)
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("validation accuracy")
    panels[0].set_ylim(0.5, 0.95)
    panels[0].legend(fontsize=8, loc="lower right")
    return figure
