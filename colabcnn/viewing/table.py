"""The article's table beside what was measured, from the folders of runs."""

import html
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from colabcnn import output
from colabcnn.experiments.catalog import EXPERIMENTS, find_experiment
from colabcnn.experiments.experiment import Experiment
from colabcnn.store.history import best_of
from colabcnn.store.run_list import runs_by_name
from colabcnn.viewing.curves import Picture, plot_curves
from colabcnn.viewing.luck import COLUMNS as SEED_COLUMNS
from colabcnn.viewing.luck import seed_rows
from colabcnn.viewing.measured_runs import longest_shipped, read_or_reason, seconds_in_words
from colabcnn.viewing.measurement_table import COLUMNS as MEASURED_COLUMNS
from colabcnn.viewing.measurement_table import measured_rows

COLUMNS = (
    "experiment",
    "the article reports",
    "last epoch",
    "the same, flip averaged",
    "best of run",
    "epochs",
    "seconds per epoch",
    "on",
)
_NOT_MEASURED = ("not yet measured", *("",) * (len(COLUMNS) - 3))


class Table(str):
    """A table as Markdown, which a notebook shows as one; `seeds` and `measured`, if any, are shown below it."""

    seeds: "Table | str" = ""
    measured: "Table | str" = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()

    def in_lines(self, width: int = 80) -> str:
        """Return the rows as text for a terminal: the first cell, and below it the others with their columns' names.

        Args:
            width: characters in a line; a longer word is not cut.
        """
        lines, wrapper = [], textwrap.TextWrapper(max(1, width - 4), break_long_words=False, break_on_hyphens=False)
        for name, *cells in self.rows:
            lines.append(_printable(name).strip("`"))
            values = [
                f"{column} {_printable(cell)}" for column, cell in zip(self.columns[1:], cells, strict=True) if cell
            ]
            lines += [f"    {line}" for line in wrapper.wrap("; ".join(values))]
        return "\n".join(lines)

    def _repr_markdown_(self):
        return "\n\n".join(filter(None, (str(self), self.seeds, self.measured)))


def summarize(*folders: str | Path | None) -> Table:
    """Return the table of the six experiments, the recipes and other runs as Markdown, a row for each run.

    Args:
        folders: folders of `<name>/seed-<n>/`, each with a run's `history.csv` and `run.json`, and of `measured/`, with
            what `measure` wrote; one that is missing counts as empty. Of a run that several hold, the first one's
            counts, beside the one that this project ships.

    Returns:
        A `str`, shown as a table by a notebook; a row without a run has "not yet measured", and that of a run that
        cannot be read has the reason. `last epoch` and `best of
        run`, the article's figure, are validation accuracies; `the same, flip averaged` is what `evaluate` measured of
        the last epoch, where the validation images were the full test set. `seconds per epoch` is the median without
        each session's first epoch, which holds the compilation; of a run on several devices, one for each. Two
        attributes are further tables, or "", which a notebook shows, too: `seeds`, the distribution over the seeds of
        each experiment that has several complete runs; `measured`, of the measured files. In `seeds`, "at least N %" is
        the share of all seeds that so many runs support, with 95 % confidence.

    Raises:
        Error: a folder cannot be read.
    """
    runs = runs_by_name(folders)
    rows = []
    for name in [*EXPERIMENTS, *(name for name in runs if name not in EXPERIMENTS)]:
        reported = EXPERIMENTS[name].reported.in_words() if name in EXPERIMENTS else ""
        measured = [_measured(read_or_reason(run_dir)) for run_dir in runs.get(name, ())]
        rows += [(f"`{name}`", reported, *cells) for cells in measured or [_NOT_MEASURED]]
    table, files = as_table(COLUMNS, rows), measured_rows(*folders)
    distribution = seed_rows(folders)
    table.seeds = as_table(SEED_COLUMNS, distribution) if distribution else ""
    table.measured = as_table(MEASURED_COLUMNS, files) if files else ""
    return table


def as_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return rows of cells as a table in Markdown, in which a cell is text and nothing else."""
    lines = [columns, ("---",) * len(columns), *rows]
    table = Table("\n".join(f"| {' | '.join(map(as_text, line))} |" for line in lines))
    table.columns, table.rows = columns, lines[2:]
    return table


def _printable(cell):
    """Return a cell without control codes, which a terminal would obey, and without what is no Unicode."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(cell.split()))


def as_text(cell: str) -> str:
    """Return a cell that stays one: a run that somebody shared may name its device as it likes."""
    return html.escape(_printable(cell), quote=False).replace("|", "\\|")


def plot_shipped(experiment: Experiment | str) -> Picture | None:
    """Draw the measured run of an experiment that this project ships, the longest, with what it was measured on.

    Args:
        experiment: an `Experiment`, or the name of one in `ABLATIONS` or `RECIPES`.

    Returns:
        A `matplotlib.figure.Figure`, which a notebook shows; or None, after a printed line, if none is shipped.

    Raises:
        Error: there is no such experiment.
    """
    name = find_experiment(experiment).name
    run = longest_shipped(name)
    if run is None:
        output.write(f"No measured run of {name} comes with the project yet.")
        return None
    last, _, best, epochs, seconds, device = _measured(run)
    figure = plot_curves(run.run_dir)
    figure.suptitle(f"{epochs} epochs on {device}; {seconds} s an epoch; best {best}, last {last}", fontsize=9)
    return figure


def _measured(run):
    if isinstance(run, str):
        return run, *_NOT_MEASURED[1:]
    if not run.length:
        return "no epoch is done yet", *_NOT_MEASURED[1:]
    last, (best, value), record = run.history["val_accuracy"][-1], best_of(run.history), run.record
    notes = [*run.images_in_words(), record.precision, f"seed {record.seed}", run.origin]
    notes += [start.time[:10] for start in record.starts[-1:] if start.time]
    averaged = run.flip_averaged()
    return (
        f"{last:.4f}",
        "" if averaged is None else f"{averaged:.4f}",
        f"{value:.4f} (epoch {best})",
        f"{run.length} of {record.experiment.epochs}",
        _seconds(run),
        ", ".join(["; ".join(run.devices), *notes]),
    )


def _seconds(run):
    """Return the seconds of an epoch; with the device's name where there are several, which are not averaged."""
    if not run.is_timed:
        return "beside other work"
    seconds = {device: seconds_in_words(value) for device, value in run.seconds_by_device().items()}
    if len(seconds) == 1:
        return next(iter(seconds.values()))
    return "; ".join(f"{value} on {device}" for device, value in seconds.items())
