"""The article's table beside what was measured, from the folders of runs, and the pictures that go with it."""

import html
import json
import statistics
from pathlib import Path

from colabcnn.checkpoint_files import checkpoint_files
from colabcnn.errors import Error
from colabcnn.experiments import ABLATIONS, find_experiment
from colabcnn.history import best_epoch, read_history
from colabcnn.plots import COLOURS, Picture, plot_curves, save_figure
from colabcnn.run_folder import FETCHED
from colabcnn.views import article_views

COLUMNS = ("experiment", "the article reports", "last epoch", "best", "epochs", "seconds an epoch", "on")


class Table(str):
    """A table as Markdown, which a notebook shows as one."""

    def _repr_markdown_(self):
        return str(self)


def summarize(*folders):
    """Return the table of the six experiments and of other runs as Markdown, a row for each run.

    Args:
        folders: folders of `<name>/seed-<n>/`, each with a run's `history.csv` and `run.json`; one that is missing
            counts as empty. Of a run that several hold, the first one's counts, beside the one that this project ships.

    Returns:
        A `str`, shown as a table by a notebook; a row without a run says "not yet measured". `seconds an epoch` is the
        median without each session's first epoch, which holds the compilation.

    Raises:
        Error: a run's history cannot be read.
    """
    runs = _runs_by_name(folders)
    rows = [COLUMNS, ("---",) * len(COLUMNS)]
    for name in [*ABLATIONS, *(name for name in runs if name not in ABLATIONS)]:
        told = (f"`{name}`", ABLATIONS[name].reported.in_words() if name in ABLATIONS else "")
        measured = [_measured(run_dir) for run_dir in runs.get(name, ())]
        rows += [(*told, *cells) for cells in measured or [("not yet measured", "", "", "", "")]]
    return Table("\n".join(f"| {' | '.join(map(_as_text, row))} |" for row in rows))


def _as_text(cell):
    """Return a cell that stays one: a run that somebody handed on may name its device as it likes."""
    return html.escape(" ".join(cell.split()), quote=False).replace("|", "\\|")


def find_runs(*folders, name=None, trained=False):
    """Return the folders of the runs in folders of `<name>/seed-<n>/`, and of those that this project ships.

    Args:
        folders: as for `summarize`; the shipped runs come last.
        name: of one experiment; None takes all.
        trained: leave out runs without weights, which can be looked at but not asked for a prediction.

    Returns:
        A list of `pathlib.Path`, for `explore`, `interactive_figure` and the like; empty where there is none.
    """
    runs = _runs_by_name([*folders, shipped_results()])
    found = [run_dir for known in runs if name in (None, known) for run_dir in runs[known]]
    found = filter(_has_weights, found) if trained else found
    return sorted(found, key=lambda run_dir: (_is_shipped(run_dir), (run_dir / FETCHED).exists()))


def _has_weights(run_dir):
    return bool(checkpoint_files(run_dir / "checkpoints")) or (run_dir / "model.keras").exists()


def plot_shipped(name):
    """Draw the measured run of an experiment that this project ships, with what it was measured on.

    Args:
        name: the experiment's, or the `Experiment`.

    Returns:
        A `matplotlib.figure.Figure`, which a notebook shows, or None, said in one line, where none is shipped.
    """
    name = find_experiment(name).name
    shipped = _runs_by_name([shipped_results()]).get(name)
    if not shipped:
        print(f"No measured run of {name} comes with the project yet.")
        return None
    last, best, epochs, seconds, device = _measured(shipped[0])
    figure = plot_curves(shipped[0])
    figure.suptitle(f"{epochs} epochs on {device}; {seconds} s an epoch; best {best}, last {last}", fontsize=9)
    return figure


def shipped_results():
    """Return the folder of measured runs that come with the project: in the package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return package / "results" if (package / "results").is_dir() else package.parent / "results"


def _runs_by_name(folders):
    """Return a dict from an experiment's name to its runs' folders, by name and seed."""
    found = {}
    for folder in filter(None, folders):
        for path in Path(folder).glob("*/seed-*/history.csv"):
            name, seed = path.parts[-3:-1]
            fetched = (path.parent / FETCHED).exists()  # Behind one's own.
            found.setdefault((fetched, name, len(seed), seed, _is_shipped(path)), path.parent)
    runs = {}
    for key in sorted(found):
        runs.setdefault(key[1], []).append(found[key])
    return runs


def _is_shipped(path):
    return shipped_results().resolve() in path.resolve().parents


def save_figures(results, folder):
    """Draw the article's four pictures of the last experiment that was measured, and two of all of them.

    Args:
        results: a folder as for `summarize`.
        folder: where the pictures go; made if missing.

    Returns:
        The paths: of that run the loss, the accuracy, the accuracy enlarged, and enlarged around the best epoch with a
        line at 0.9; the validation accuracy of all runs; the seconds of their epochs.

    Raises:
        Error: there is no run, or a file cannot be read or written.
    """
    runs = _runs_by_name([results])
    chosen = [run_dir for name in ABLATIONS for run_dir in runs.get(name, ())[:1]]
    if not chosen:
        raise Error(f"{results} holds no run of {', '.join(ABLATIONS)}; train one first.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shown = chosen[-1]
    views = article_views({"": read_history(shown / "history.csv")})
    figures = {
        **{name.replace(" ", "-"): _in_view(shown, view) for name, view in views.items()},
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
    if run is None:
        return "its run.json cannot be read", "", "", "", ""
    accuracies, best = history["val_accuracy"], best_epoch(history)
    if not accuracies:
        return "no epoch is done yet", "", "", "", ""
    devices = list(dict.fromkeys(start["device"] for start in run["starts"]))
    fetched = ", handed on by somebody" if (run_dir / FETCHED).exists() else ""
    return (
        f"{accuracies[-1]:.4f}",
        f"{accuracies[best - 1]:.4f} (epoch {best})",
        f"{len(accuracies)} of {run['epochs']}",
        f"{statistics.median(_undisturbed(history, run)):.0f}",
        f"{'; '.join(devices)}, {run['precision']}, seed {run['seed']}{fetched}",
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
        return None  # As where Drive has brought one of the two files.


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
