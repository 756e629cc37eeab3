"""The explorer's controls: what stands where, and which change of the view each one asks for."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import ipywidgets as widgets

from colabcnn.viewing.curves import colours_of
from colabcnn.viewing.views import METRICS, best_in_words

if TYPE_CHECKING:
    from colabcnn.viewing.explorer import Explorer

VIEWS = {
    "loss": ("Loss", "The loss over the whole run"),
    "accuracy": ("Accuracy", "The accuracy over the whole run"),
    "enlarged": ("Enlarged", "The accuracy near its highest values"),
    "around the best": ("Around the best", "The epochs around the best one, with a line at 0.9"),
}

# ipywidgets 7 takes a description for HTML, and sets what stands between dollars as a formula.
_NO_MARKUP = str.maketrans("<>&$", "‹›＆＄")  # noqa: RUF001


class Controls:
    """The widgets of an `Explorer`.

    Args:
        explorer: the `Explorer` whose view they show and change.
    """

    def __init__(self, explorer: Explorer):
        self._explorer = explorer
        self._syncing = False
        wide, narrow = widgets.Layout(flex="1 1 auto", width="auto"), widgets.Layout(width="6.5em")
        self.image = widgets.Image(format="png", layout=widgets.Layout(width="100%", max_width="900px"))
        self.caption = widgets.HTML()
        self.views = {name: _button(label, tip) for name, (label, tip) in VIEWS.items()}
        self.zoom_out = _button("Zoom out", "Twice as many epochs and values")
        self.back = _button("Back", "What was shown before")
        self.refresh = _button("Refresh", "Read the runs again")
        self.metric = widgets.ToggleButtons(options=METRICS, tooltips=["Show the loss", "Show the accuracy"])
        self.metric.style.button_width = "7em"
        self.training = widgets.Checkbox(description="training (dashed)", indent=False, layout=_fitting())
        self.validation = widgets.Checkbox(description="validation (solid)", indent=False, layout=_fitting())
        self.line_on = widgets.Checkbox(description="line at", indent=False, layout=_fitting())
        self.line = widgets.FloatText(0.9, step=0.01, layout=narrow)
        self.smoothing = widgets.IntSlider(
            1, min=1, max=51, description="smoothing", layout=widgets.Layout(width="20em")
        )
        self.epochs = widgets.IntRangeSlider(min=1, max=2, description="epochs", readout=False, layout=wide)
        self.first, self.last = widgets.IntText(layout=narrow), widgets.IntText(layout=narrow)
        self.values = widgets.FloatRangeSlider(description="values", step=0.001, readout=False, layout=wide)
        self.low, self.high = (widgets.FloatText(step=0.01, layout=narrow) for _ in range(2))
        self.runs = {}
        self._runs_row = _row([])
        self.file = widgets.Text("curves.png", description="file", layout=widgets.Layout(width="18em"))
        self.save = _button("Save", "A .png or an .svg, by the name's ending")
        self.rows = [
            _row([*self.views.values(), self.zoom_out, self.back, self.refresh]),
            _row([self.metric, self.training, self.validation, self.line_on, self.line]),
            self._runs_row,
            self.image,
            self.caption,
            widgets.HBox([self.epochs, self.first, self.last]),
            widgets.HBox([self.values, self.low, self.high]),
            _row([self.smoothing, self.file, self.save]),
        ]
        self._connect()

    def _connect(self):
        explorer = self._explorer
        for name, button in self.views.items():
            _on_click(button, partial(explorer.show_article_view, name))
        _on_click(self.zoom_out, explorer.zoom_out)
        _on_click(self.back, explorer.back)
        _on_click(self.refresh, partial(explorer.tell_errors, explorer.refresh))
        _on_click(self.save, lambda: explorer.tell_errors(explorer.save, self.file.value))
        # What each control's new value asks the view to change.
        asks = {
            self.metric: lambda value: {"metric": value, "value_range": (None, None), "line": None},
            self.training: lambda value: {"training": value},
            self.validation: lambda value: {"validation": value},
            self.smoothing: lambda value: {"smoothing": value},
            self.line_on: lambda value: {"line": self.line.value if value else None},
            self.line: lambda value: {"line": value},
            self.epochs: lambda value: {"epochs": value},
            self.first: lambda value: {"epochs": (value, explorer.view.epochs[1])},
            self.last: lambda value: {"epochs": (explorer.view.epochs[0], value)},
            self.values: lambda value: {"value_range": value},
            self.low: lambda value: {"value_range": (value, explorer.view.value_range[1])},
            self.high: lambda value: {"value_range": (explorer.view.value_range[0], value)},
        }
        for control, ask in asks.items():
            control.observe(partial(self._on_value, control, ask), "value")

    def _on_value(self, control, ask, change):
        if not self._syncing:
            self._explorer.change(replace(self._explorer.view, **ask(change["new"])), control)

    def _on_run(self, label, change):
        if not self._syncing:
            self._explorer.switch(label, change["new"])

    def sync(self) -> None:
        """Let every control show the explorer's view."""
        self._syncing = True
        try:
            self._sync_runs()
            view = self._explorer.view
            self.metric.value, self.training.value, self.validation.value = view.metric, view.training, view.validation
            self.smoothing.value, self.line_on.value = view.smoothing, view.line is not None
            if view.line is not None:
                self.line.value = view.line
            _set_range(self.epochs, (1, self._explorer.last_epoch), view.epochs)
            _set_range(self.values, self._explorer.limits, view.value_range)
            self.first.value, self.last.value = view.epochs
            self.low.value, self.high.value = (round(value, 4) for value in view.value_range)
        finally:
            self._syncing = False

    def _sync_runs(self):
        histories = self._explorer.histories
        if list(self.runs) != list(histories):
            self.runs = {}
            items = []
            for label, colour in colours_of(histories).items():
                self.runs[label] = widgets.Checkbox(indent=False, layout=_fitting())
                self.runs[label].observe(partial(self._on_run, label), "value")
                items.append(widgets.HBox([_swatch(colour), self.runs[label]]))
            self._runs_row.children = items
        for label, box in self.runs.items():
            box.value = label in self._explorer.labels
            box.description = f"{label.translate(_NO_MARKUP)}: {best_in_words(histories[label])}"


def _set_range(slider, limits, span):
    # A slider refuses limits in the wrong order, and cuts its value to them.
    slider.max = max(slider.max, limits[1])
    slider.min, slider.max = limits
    slider.value = span


def _button(label, tip):
    return widgets.Button(description=label, tooltip=tip, layout=_fitting())


def _on_click(button, function):
    button.on_click(lambda _: function())


def _fitting():
    return widgets.Layout(width="auto")


def _row(children):
    return widgets.HBox(children, layout=widgets.Layout(flex_flow="row wrap", align_items="center"))


def _swatch(colour):
    # The border tells black from a dark theme.
    style = f"display:inline-block;width:1em;height:1em;margin:0 .2em 0 .8em;border:1px solid #999;background:{colour}"
    return widgets.HTML(f'<span style="{style}"></span>', layout=_fitting())
