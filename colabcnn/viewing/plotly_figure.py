"""The curves of runs as a Plotly figure, with the buttons that choose what of them is shown.

A button carries the values that it shows instead of hiding curves, so that a run which was hidden stays hidden.
"""

import html
from typing import Any

from colabcnn.store.history import History, best_epoch
from colabcnn.viewing.curves import COLOURS, colours_of
from colabcnn.viewing.views import METRICS, article_views, best_in_words

FONT = "system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
HINT = (
    "solid: validation, dashed: training, star: best epoch<br>"
    "drag to zoom, double click to see everything<br>"
    "click a run's name to hide or show it"
)
# What is told of the best epoch, and the history's column that holds it.
TOLD_OF_BEST = {
    "best epoch": "epoch",
    "validation accuracy": "val_accuracy",
    "training accuracy": "accuracy",
    "validation loss": "val_loss",
    "training loss": "loss",
}
# Pixels: above the curves, of which the hint and each row of buttons take a part; below them, without the legend, and
# of a row of the legend.
TOP, HINT_HEIGHT, BUTTONS_HEIGHT = 135, 56, 38
BOTTOM, LEGEND_ROW = 70, 20
LONGEST = 60  # Characters of a label in the legend.


def draw_figure(plotly: Any, histories: dict[str, History]) -> Any:
    """Return a `plotly.graph_objects.Figure` of the curves; its values have nine digits.

    Args:
        plotly: the module `plotly.graph_objects`.
        histories: a dict from a run's label to its history, as `read_history` returns it.
    """
    # The stars come last: of two points that are equally near to the pointer, the later one answers.
    curves = [
        {"name": literal(label), "legendgroup": label, **curve(label, history, line)}
        for curve in (_training, _validation, _best)
        for (label, history), line in zip(histories.items(), _lines(histories), strict=True)
    ]
    values = {metric: [curve.pop(metric) for curve in curves] for metric in METRICS}
    traces = [plotly.Scatter(curve, y=y) for curve, y in zip(curves, values["accuracy"], strict=True)]
    return plotly.Figure(traces, _layout(histories, values))


def values_of_best(history: History) -> dict[str, float]:
    """Return a dict from the names in `TOLD_OF_BEST` to numbers; empty without epochs."""
    best = best_epoch(history)
    if best is None:
        return {}
    index = history["epoch"].index(best)
    return {name: history[column][index] for name, column in TOLD_OF_BEST.items()}


def literal(text: str) -> str:
    """Return a text that Plotly shows as it is, without its tags, its `%{...}` and the `$...$` of MathJax."""
    return html.escape(text, quote=False).replace("%", "&#37;").replace("$", "&#36;")


def _shortened(label):
    """Return a label that fits into a row of the legend; pointing at a curve tells the whole."""
    return label if len(label) <= LONGEST else f"{label[: LONGEST // 2]}…{label[-LONGEST // 2 :]}"


def _lines(histories):
    """Return the style of each run's line; when the colours are used up they begin again, in thicker lines."""
    colours = colours_of(histories).values()
    return [{"color": colour, "width": 1.5 + 1.0 * (index // len(COLOURS))} for index, colour in enumerate(colours)]


def _training(label, history, line):
    return {
        **_curve(label, history, "training"),
        **{metric: _rounded(history[metric]) for metric in METRICS},
        "line": {**line, "dash": "dash"},
        "opacity": 0.6,
        "showlegend": False,
    }


def _validation(label, history, line):
    return {
        **_curve(label, history, "validation"),
        "name": literal(f"{_shortened(label)}: {best_in_words(history)}"),
        **{metric: _rounded(history[f"val_{metric}"]) for metric in METRICS},
        "line": line,
        "showlegend": True,
    }


def _curve(label, history, kind):
    return {
        "x": history["epoch"],
        # A single epoch is a point, which a line alone would not show.
        "mode": "lines+markers" if len(history["epoch"]) == 1 else "lines",
        "hovertemplate": f"<b>{literal(label)}</b><br>epoch %{{x}}<br>{kind} %{{y:.4f}}<extra></extra>",
    }


def _best(label, history, line):
    values = values_of_best(history)
    told = "".join(f"<br>{name} {value:.4f}" for name, value in list(values.items())[1:])
    # A small marker is nearer to the pointer than a large one at the same place. Without a second point, small and
    # unseen, the middle of the star would tell of the curve below it.
    sizes, opacities = [16, 6], [1, 0]
    return {
        "x": [values["best epoch"]] * 2 if values else [],
        **{metric: _rounded([values[f"validation {metric}"]] * 2) if values else [] for metric in METRICS},
        "mode": "markers",
        "marker": {
            "symbol": "star",
            "size": sizes,
            "opacity": opacities,
            "color": line["color"],
            "line": {"color": "white", "width": 1},
        },
        "hovertemplate": f"<b>{literal(label)}</b><br>best epoch %{{x}}{told}<extra></extra>",
        "showlegend": False,
    }


def _rounded(values):
    """Return values with nine digits, as many as tell one float32 from another; all of them take twice the room."""
    return [float(f"{value:.9g}") for value in values]


def _layout(histories, values):
    views = article_views(histories)
    last = max((history["epoch"][-1] for history in histories.values() if history["epoch"]), default=1)
    axis = {"gridcolor": "#E3E3E3", "linecolor": "#888888", "showline": True, "zeroline": False, "ticks": "outside"}
    return {
        # Nothing is left to the notebook's theme: on a dark page the figure is a light card.
        "template": "none",
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "font": {"family": FONT, "size": 13, "color": "#222222"},
        "height": 560 + LEGEND_ROW * len(histories),
        "margin": {"t": TOP, "r": 20, "b": BOTTOM + LEGEND_ROW * len(histories), "l": 60},
        "dragmode": "zoom",
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "font": {"family": FONT}},
        # Newer versions offer to send the figure to a server of Plotly's; the curves are nobody else's.
        "modebar": {"remove": ["select2d", "lasso2d", "sendChartToCloud"]},
        # A row for each run below the curves takes the same height on every screen, and names may be long.
        "legend": {"x": 0, "y": 0, "yref": "container", "yanchor": "bottom", "tracegroupgap": 0},
        "xaxis": {
            **axis,
            "title": {"text": "epoch"},
            # The room that Plotly leaves for a star would show epochs below zero.
            "autorangeoptions": {"minallowed": 0, "maxallowed": last + max(1, last // 50)},
            "dtick": 1 if last <= 10 else None,
        },
        "yaxis": {**axis, "title": {"text": "accuracy"}},
        "shapes": [_guide(views["around the best"].line)],
        "annotations": [_hint()],
        "updatemenus": [
            _menu(HINT_HEIGHT + BUTTONS_HEIGHT, [_metric_button(metric, values) for metric in ("accuracy", "loss")]),
            _menu(HINT_HEIGHT, _view_buttons(views, values)),
        ],
    }


def _guide(value):
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": value,
        "y1": value,
        "line": {"color": "#555555", "width": 1.5, "dash": "dot"},
        "label": {
            "text": f"{value}",
            "textposition": "start",
            "yanchor": "top",
            "font": {"size": 11, "color": "#555555"},
        },
    }


def _hint():
    return {
        "text": HINT,
        "align": "left",
        "font": {"size": 11, "color": "#555555"},
        "showarrow": False,
        "xref": "paper",
        "x": 0,
        "xanchor": "left",
        "yref": "paper",
        "y": 1,
        "yanchor": "bottom",
        "yshift": 4,
    }


def _menu(above, buttons):
    """Return a row of buttons, so many pixels above the curves."""
    return {
        "type": "buttons",
        "direction": "right",
        "buttons": buttons,
        "x": 0,
        "xanchor": "left",
        "y": 1,
        "yanchor": "bottom",
        "pad": {"b": above},
        "bgcolor": "#DADADA",
        "bordercolor": "#999999",
        "font": {"size": 12, "color": "#222222"},
    }


def _metric_button(metric, values):
    layout = {**_axes_of(metric), **_ranges(), "updatemenus[1].active": 0}
    return {"label": metric, "method": "update", "args": [{"y": values[metric]}, layout]}


def _view_buttons(views, values):
    buttons = [{"label": "whole run", "method": "relayout", "args": [_ranges()]}]
    for name, label in (("enlarged", "accuracy enlarged"), ("around the best", "around the best epoch")):
        layout = {
            **_axes_of("accuracy"),
            **_ranges(views[name].epochs, views[name].value_range),
            "updatemenus[0].active": 0,
        }
        buttons.append({"label": label, "method": "update", "args": [{"y": values["accuracy"]}, layout]})
    return buttons


def _axes_of(metric):
    return {"yaxis.title.text": metric, "shapes[0].visible": metric == "accuracy"}


def _ranges(epochs=(None, None), values=(None, None)):
    """Return what sets both axes, each to a range or, where an end is open, to all that there is."""
    layout = {}
    for axis, limits in (("xaxis", epochs), ("yaxis", values)):
        layout |= {f"{axis}.autorange": True} if None in limits else {f"{axis}.range": list(limits)}
    return layout
