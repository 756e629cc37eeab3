"""The article's table beside what was measured, from the folders of runs, and the pictures that go with it."""

import json
import statistics
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from colabcnn.errors import Error
from colabcnn.experiments import ABLATIONS
from colabcnn.history import best_epoch, read_history
from colabcnn.plots import COLOURS, plot_curves, save_figure

COLUMNS = ("experiment", "the article reports", "last epoch", "best", "epochs", "seconds an epoch", "on")
BEST_SPAN = 25


def summarize(results):
    """Return the table of the six experiments as Markdown, a row for each run.

    Args:
        results: folder of `<name>/seed-<n>/`, each with a run's `history.csv` and `run.json`.

    Returns:
        Lines joined; a row without a run says "not yet measured". `seconds an epoch` is the median without each
        session's first epoch, which holds the compilation.

    Raises:
        Error: there is no such folder, or a run's files cannot be read.
    """
    runs = find_runs(results)
    rows = [COLUMNS, ("---",) * len(COLUMNS)]
    for name, experiment in ABLATIONS.items():
        told = (f"`{name}`", experiment.reported.in_words())
        measured = [_measured(run_dir) for run_dir in runs.get(name, ())]
        rows += [(*told, *cells) for cells in measured or [("not yet measured", "", "", "", "")]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def find_runs(results):
    """Return the runs in a results folder: a dict from an experiment's name to its runs' folders, by seed.

    Raises:
        Error: there is no such folder.
    """
    results = Path(results)
    if not results.is_dir():
        raise Error(f"{results} is not there; expected a folder of <experiment>/seed-<n>/ with each run's history.csv.")
    found = {}
    for path in sorted(results.glob("*/seed-*/history.csv"), key=lambda path: (len(path.parts[-2]), path.parts[-2])):
        found.setdefault(path.parts[-3], []).append(path.parent)
    return found


def save_figures(results, folder):
    """Draw the article's four pictures of the last experiment that was measured, and two of all of them.

    Args:
        results: as for `summarize`.
        folder: where the pictures go; made if missing.

    Returns:
        The paths: of that run the loss, the accuracy, the accuracy enlarged, and enlarged around the best epoch with a
        line at 0.9; the validation accuracy of all runs; the seconds of their epochs.

    Raises:
        Error: there is no run, or a file cannot be read or written.
    """
    runs = find_runs(results)
    chosen = [run_dir for name in ABLATIONS for run_dir in runs.get(name, ())[:1]]
    if not chosen:
        raise Error(f"{results} holds no run of {', '.join(ABLATIONS)}; train one first.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shown = chosen[-1]
    history = read_history(shown / "history.csv")
    best, last = best_epoch(history), history["epoch"][-1]
    top = max(history["val_accuracy"])
    around = (max(1, best - BEST_SPAN), max(2, min(last, best + BEST_SPAN)))
    figures = {
        "loss": plot_curves(shown, metric="loss"),
        "accuracy": plot_curves(shown, metric="accuracy"),
        "accuracy-enlarged": plot_curves(shown, metric="accuracy", value_range=(max(0.0, top - 0.15), top + 0.1)),
        "best-enlarged": plot_curves(
            shown, metric="accuracy", epochs=around, value_range=(max(0.0, top - 0.03), max(0.91, top + 0.02)), line=0.9
        ),
        "validation": _validation(chosen),
        "seconds": _seconds(chosen),
    }
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        save_figure(figure, paths[-1])
    return paths


def _measured(run_dir):
    history, run = read_history(run_dir / "history.csv"), _read_run(run_dir)
    accuracies, best = history["val_accuracy"], best_epoch(history)
    if not accuracies:
        return "no epoch is done yet", "", "", "", ""
    devices = list(dict.fromkeys(start["device"] for start in run["starts"]))
    return (
        f"{accuracies[-1]:.4f}",
        f"{accuracies[best - 1]:.4f} (epoch {best})",
        f"{len(accuracies)} of {run['epochs']}",
        f"{statistics.median(_undisturbed(history, run)):.0f}",
        f"{'; '.join(devices)}, {run['precision']}, seed {run['seed']}",
    )


def _undisturbed(history, run):
    """Return the seconds of the epochs that began no session; of all where each did."""
    first = {start["first_epoch"] for start in run["starts"]}
    seconds = [value for epoch, value in zip(history["epoch"], history["seconds"], strict=True) if epoch not in first]
    return seconds or history["seconds"]


def _read_run(run_dir):
    try:
        run = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
        return {key: run[key] for key in ("starts", "epochs", "precision", "seed")}
    except (OSError, ValueError, KeyError, TypeError):
        raise Error(f"{run_dir / 'run.json'} cannot be read; expected what the run wrote beside its history.") from None


def _validation(run_dirs):
    return _one_line_a_run(run_dirs, lambda history: history["val_accuracy"], "validation accuracy")


def _seconds(run_dirs):
    figure = _one_line_a_run(run_dirs, lambda history: history["seconds"], "seconds an epoch")
    figure.axes[0].set_ylim(bottom=0)
    return figure


def _one_line_a_run(run_dirs, values, label):
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
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
