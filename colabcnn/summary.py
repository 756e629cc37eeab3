"""The article's table beside what was measured, from the folders of runs."""

import html
import json
import statistics
from pathlib import Path

from colabcnn.checkpoint_files import checkpoint_files
from colabcnn.history import best_epoch, read_history
from colabcnn.measured_words import measured_rows
from colabcnn.plots import plot_curves
from colabcnn.recipes import EXPERIMENTS, find_experiment
from colabcnn.run_folder import FETCHED, FLIP_AVERAGED

COLUMNS = (
    "experiment",
    "the article reports",
    "last epoch",
    "the same, flip averaged",
    "best of run",
    "epochs",
    "seconds an epoch",
    "on",
)
_NOT_MEASURED = ("not yet measured", *("",) * (len(COLUMNS) - 3))


class Table(str):
    """A table as Markdown, which a notebook shows as one; `measured` is shown below it, if there is any."""

    measured = ""

    def _repr_markdown_(self):
        return "\n\n".join(filter(None, (str(self), self.measured)))


def summarize(*folders):
    """Return the table of the six experiments, the recipes and other runs as Markdown, a row for each run.

    Args:
        folders: folders of `<name>/seed-<n>/`, each with a run's `history.csv` and `run.json`, and of `measured/`, with
            what `measure` wrote; one that is missing counts as empty. Of a run that several hold, the first one's
            counts, beside the one that this project ships.

    Returns:
        A `str`, shown as a table by a notebook; a row without a run says "not yet measured". `last epoch` and `best of
        run`, the article's figure, are validation accuracies; `the same, flip averaged` is what `evaluate` measured of
        the last epoch, where the validation images were the whole test set. `seconds an epoch` is the median without
        each session's first epoch, which holds the compilation. Its attribute `measured` is a second table, of the
        measured files, or "" without any; a notebook shows both.

    Raises:
        Error: a run's history cannot be read.
    """
    runs = runs_by_name(folders)
    rows = [COLUMNS, ("---",) * len(COLUMNS)]
    for name in [*EXPERIMENTS, *(name for name in runs if name not in EXPERIMENTS)]:
        told = (f"`{name}`", EXPERIMENTS[name].reported.in_words() if name in EXPERIMENTS else "")
        measured = [_measured(run_dir) for run_dir in runs.get(name, ())]
        rows += [(*told, *cells) for cells in measured or [_NOT_MEASURED]]
    table = Table(_as_lines(rows))
    table.measured = Table(_as_lines(measured_rows(*folders)))
    return table


def _as_lines(rows):
    return "\n".join(f"| {' | '.join(map(_as_text, row))} |" for row in rows)


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
    runs = runs_by_name([*folders, shipped_results()])
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
    shipped = runs_by_name([shipped_results()]).get(name)
    if not shipped:
        print(f"No measured run of {name} comes with the project yet.")
        return None
    last, _, best, epochs, seconds, device = _measured(shipped[0])
    figure = plot_curves(shipped[0])
    figure.suptitle(f"{epochs} epochs on {device}; {seconds} s an epoch; best {best}, last {last}", fontsize=9)
    return figure


def shipped_results():
    """Return the folder of measured runs that come with the project: in the package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return package / "results" if (package / "results").is_dir() else package.parent / "results"


def runs_by_name(folders):
    """Return a dict from each name to its runs' folders, by name and seed, of folders of `<name>/seed-<n>/`."""
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


def _measured(run_dir):
    history, run = read_history(run_dir / "history.csv"), read_run(run_dir)
    if run is None:
        return "its run.json cannot be read", *_NOT_MEASURED[1:]
    accuracies, best = history["val_accuracy"], best_epoch(history)
    if not accuracies:
        return "no epoch is done yet", *_NOT_MEASURED[1:]
    notes = [run["precision"], f"seed {run['seed']}"]
    notes += [f"validated on {run['holdout']} training images held out"] if run["holdout"] else []
    notes += ["handed on by somebody"] if (run_dir / FETCHED).exists() else []
    return (
        f"{accuracies[-1]:.4f}",
        _flip_averaged(run_dir, run, len(accuracies)),
        f"{accuracies[best - 1]:.4f} (epoch {best})",
        f"{len(accuracies)} of {run['epochs']}",
        f"{statistics.median(_undisturbed(history, run)):.0f}",
        ", ".join([devices_of(run), *notes]),
    )


def _flip_averaged(run_dir, run, epoch):
    """Return what `evaluate` measured of the run's last epoch, empty where it did not, or not on the same images."""
    try:
        measured = json.loads((run_dir / "test.json").read_text(encoding="utf-8"))
        last, same = measured["last_epoch"], (0, measured["test_size"]) == (run["holdout"], run["val_size"])
        return f"{last[FLIP_AVERAGED]:.4f}" if same and last["epoch"] == epoch else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _undisturbed(history, run):
    """Return the seconds of the epochs that began no session; of all where each did."""
    first = {start["first_epoch"] for start in run["starts"]}
    seconds = [value for epoch, value in zip(history["epoch"], history["seconds"], strict=True) if epoch not in first]
    return seconds or history["seconds"]


def devices_of(run):
    """Return the devices that a run, as `read_run` returns it, was trained on."""
    return "; ".join(dict.fromkeys(start["device"] for start in run["starts"]))


def read_run(run_dir):
    """Return what of a run's `run.json` the table tells, or None where that cannot be read."""
    try:
        run = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
        return {key: run[key] for key in ("starts", "epochs", "precision", "seed", "data", "holdout", "val_size")}
    except (OSError, ValueError, KeyError, TypeError):
        return None  # As where Drive has brought one of the two files.
