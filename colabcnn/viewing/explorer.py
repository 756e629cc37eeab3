"""The interactive explorer: ipywidgets around `curves`; the picture is a PNG, which every front end shows."""

import asyncio
import html
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from colabcnn.errors import Error
from colabcnn.store.history import read_history
from colabcnn.store.run_list import list_runs
from colabcnn.viewing.curves import Picture, colours_of, draw_curves, legend_of, png_of, save_figure
from colabcnn.viewing.explorer_controls import Controls
from colabcnn.viewing.views import View, article_views, value_limits

# Changes of one control within this time are one step for Back, such as a drag.
GESTURE_SECONDS = 1.0
# A redraw waits this long, or as long as the last one took: what a fast drag has queued up in the kernel meanwhile is
# taken in first, and one picture is drawn.
REDRAW_SECONDS = 0.02
INCHES = 9.0, 4.6


def explore(*run_dirs: str | Path) -> "Explorer":
    """Show the curves of one run or several, to look closely at.

    Args:
        run_dirs: folders of runs, and folders with runs at any depth below them. The runs may still be going: Refresh
            reads them again, and finds new ones.

    Returns:
        An `Explorer`, a widget; as the last line of a notebook's cell it shows itself.

    Raises:
        Error: a folder that is not there or holds no run, or a history that cannot be read.
    """
    return Explorer(*run_dirs)


class Explorer(widgets.VBox):
    """A picture with sliders, fields and buttons around it; see `explore`.

    Args:
        run_dirs: as for `explore`.
    """

    def __init__(self, *run_dirs: str | Path):
        self._run_dirs = run_dirs
        self._hidden = set()
        self._view = View()
        self._before = []
        self._changed = None, float("-inf")
        self._redraw = None
        self._draw_seconds = 0.0
        self.draws = 0
        self.histories = _read(run_dirs)
        self.controls = Controls(self)
        super().__init__(self.controls.rows)
        self.controls.sync()
        self._draw()  # At once: after Run all, the kernel comes to a timer only when all other cells are done.

    @property
    def view(self) -> View:
        """What is shown: a `View` in which no end is left open."""
        first, last = self._view.epochs
        low, high = self._view.value_range
        least, most = self.limits
        return replace(
            self._view,
            epochs=(1 if first is None else first, self.last_epoch if last is None else last),
            value_range=(least if low is None else low, most if high is None else high),
        )

    @property
    def labels(self) -> list[str]:
        """The labels of the runs that are shown."""
        return [label for label in self.histories if label not in self._hidden]

    @property
    def last_epoch(self) -> int:
        """The last epoch of all runs; 2 at least, so that there is a span to show."""
        return max(2, *(len(history["epoch"]) for history in self.histories.values()))

    @property
    def limits(self) -> tuple[float, float]:
        """The values between which the chosen metric lies, over all epochs of all runs."""
        return value_limits(self.histories, self._view.metric)

    def change(self, view: View, control: Any = None) -> None:
        """Show another view; Back returns to this one.

        Args:
            view: `View`; ends outside the data are clipped, and reversed ones put in order.
            control: what asked for it: changes of the same one in quick succession are one step for Back.
        """
        view = self._within_the_data(view)
        if view == self._view:
            self.controls.sync()
            return
        now = time.monotonic()
        if control is None or control is not self._changed[0] or now - self._changed[1] > GESTURE_SECONDS:
            self._before = [*self._before[-99:], self._view]
        self._changed = control, now
        self._view = view
        self._show()

    def show_article_view(self, name: str) -> None:
        """Show one of the article's four pictures; see `views.article_views`."""
        shown = article_views({label: self.histories[label] for label in self.labels})[name]
        keep = {"training": self._view.training, "validation": self._view.validation}
        self.change(replace(shown, smoothing=self._view.smoothing, **keep))

    def zoom_out(self) -> None:
        """Show twice as many epochs and values around the same middle."""
        (first, last), (low, high) = self.view.epochs, self.view.value_range
        epochs = first - (last - first) // 2 - 1, last + (last - first) // 2 + 1
        self.change(
            replace(self._view, epochs=epochs, value_range=(low - (high - low) / 2, high + (high - low) / 2)),
        )

    def back(self) -> None:
        """Show what was shown before."""
        if self._before:
            self._view = self._within_the_data(self._before.pop())
            self._changed = None, float("-inf")
            self._show()

    def switch(self, label: str, on: bool) -> None:
        """Show a run, or hide it."""
        (self._hidden.discard if on else self._hidden.add)(label)
        self._show()

    def refresh(self) -> None:
        """Read the runs again; a view that reached to the last epoch goes on reaching there."""
        self.histories = _read(self._run_dirs)
        self._hidden &= set(self.histories)
        self._view = self._within_the_data(self._view)  # A run that was started over has fewer epochs.
        self._show()

    def save(self, path: str | Path) -> None:
        """Write what is shown as a picture, PNG or SVG by the path's ending.

        Raises:
            Error: an ending that Matplotlib does not know, or a file that cannot be written.
        """
        save_figure(self._figure(legend=True), path)
        self.controls.caption.value = f"Saved as {html.escape(str(Path(path).resolve()))}"

    def tell_errors(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function; an `Error` of it is told below the picture."""
        try:
            function(*arguments)
        except Error as error:
            self.controls.caption.value = f"<b>{html.escape(str(error))}</b>"

    def _within_the_data(self, view):
        first, last = _span(view.epochs, (1, self.last_epoch), least=1)
        limits = value_limits(self.histories, view.metric)
        low, high = _span(view.value_range, limits, least=1e-6)
        # An end of the data is left open: it is still the end when the run has gone on.
        return replace(
            view,
            epochs=(None if first == 1 else first, None if last == self.last_epoch else last),
            value_range=(None if low == limits[0] else low, None if high == limits[1] else high),
        )

    def _show(self):
        """Bring the controls up to date at once and the picture as soon as no more changes wait."""
        self.controls.sync()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._draw()
            return
        if self._redraw is None:
            self._redraw = loop.call_later(max(REDRAW_SECONDS, self._draw_seconds), self._draw)

    def _draw(self):
        self._redraw = None
        self.draws += 1
        began = time.monotonic()
        self.controls.image.value = png_of(self._figure(), quick=True)
        # A drag whose next change waited for this picture is still one.
        self._changed = self._changed[0], time.monotonic()
        self._draw_seconds = self._changed[1] - began
        self.controls.caption.value = html.escape(self._in_words())

    def _figure(self, legend=False):
        # On the screen the switches of the runs are the legend: one in the picture would double the time of a redraw.
        histories = {label: self.histories[label] for label in self.labels}
        colours = colours_of(self.histories)
        figure = Picture(figsize=INCHES)
        axes = figure.add_axes((0.075, 0.11, 0.905, 0.86))
        draw_curves(axes, histories, self.view, colours)
        if legend:
            axes.legend(handles=legend_of(histories, self.view, colours), fontsize=8)
        return figure

    def _in_words(self):
        view = self.view
        words = f"{view.metric} from {view.value_range[0]:.4g} to {view.value_range[1]:.4g}, "
        return f"{words}epochs {view.epochs[0]} to {view.epochs[1]}"


def _read(run_dirs):
    return {label: read_history(path / "history.csv") for label, path in list_runs(*run_dirs).items()}


def _span(span, limits, least):
    """Return a span within the limits, its lower end first, open ends at the limits, no narrower than `least`."""
    low, high = (
        limit if end is None else min(max(end, limits[0]), limits[1]) for end, limit in zip(span, limits, strict=True)
    )
    low, high = min(low, high), max(low, high)
    if high - low < least:
        low, high = max(limits[0], low - least), min(limits[1], high + least)
    return low, high
