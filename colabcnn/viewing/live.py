"""The explorer of one run below its training's lines, refreshed while it trains."""

import uuid
from collections.abc import Callable
from pathlib import Path

from colabcnn.experiments.catalog import EXPERIMENTS
from colabcnn.store.history import History, best_of
from colabcnn.store.run_list import run_labels
from colabcnn.store.run_record import RunRecord
from colabcnn.viewing.browser_data import data_html, data_of, figure_html, picture_html
from colabcnn.viewing.measured_runs import MeasuredRun, longest_shipped


class LiveCurves:
    """The curves of one run as a notebook's outputs.

    Args:
        run_dir: the run's folder.
        show: called with a name and HTML: shows an output of that name, or replaces it.
    """

    def __init__(self, run_dir: Path, show: Callable[[str, str], None]):
        self._run_dir = run_dir
        self._label = run_labels([run_dir])[0]
        self._show = show
        self._key = uuid.uuid4().hex
        self._references = None
        self._is_shown = False

    def show_picture(self, png: bytes) -> None:
        """Refresh the picture that is seen where no script runs."""
        self._show("picture", picture_html(self._key, png, [self._label]))

    def show(self, history: History, record: RunRecord) -> None:
        """Refresh the curves; the view that a person chose stays.

        Args:
            history: the run's, so far.
            record: the run's.
        """
        self._references = references_of(record) if self._references is None else self._references
        run = MeasuredRun(self._run_dir, history, record)
        more = {"references": self._references, "call": f"colabcnn.explore({str(self._run_dir)!r}, view="}
        self._show("data", data_html(self._key, data_of({self._label: run}, **more)))
        if not self._is_shown:  # Never again: a figure that is shown again loses its zoom.
            self._show("figure", figure_html(self._key))
            self._is_shown = True


def references_of(record: RunRecord) -> list[dict]:
    """Return what a run is compared with, as reference lines: the article's best and that of the shipped run.

    Args:
        record: the run's; one on other images than CIFAR-10 has no reference.
    """
    name, values = record.experiment.name, {}
    if record.data == "cifar10" and name in EXPERIMENTS:
        values["article's best"] = EXPERIMENTS[name].reported.best_val_accuracy
        if run := longest_shipped(name):
            values["shipped run's best"] = best_of(run.history)[1]
    return [{"label": f"{label} {value:.4f}", "value": value} for label, value in values.items() if value]
