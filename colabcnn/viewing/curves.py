"""A run's curves, drawn by Matplotlib's object interface: no pyplot, no global state."""

import functools
import io
import itertools
import math
import os
import re
import warnings
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import Any

from matplotlib import font_manager, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from colabcnn.errors import Error
from colabcnn.store.files import expand, write_atomically
from colabcnn.store.history import History, best_of, read_history
from colabcnn.store.run_list import run_labels

# Okabe and Ito's colours, which colour-blind people can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
METRICS = ("loss", "accuracy")
_JAPANESE_FONT = re.compile(r"Noto Sans (CJK )?JP|(IPAex|IPA|Takao|VL |Yu |MS )Gothic|Hiragino Sans")


def shortened(label: str, most: int = 45) -> str:
    """Return a label of `most` characters, with its middle left out if it is longer: axes get narrow beside it."""
    side = most // 2 - 2
    return label if len(label) <= most else f"{label[:side]} … {label[-side:]}"


class Picture(Figure):
    """A figure that a notebook shows as a picture, without pyplot."""

    def _repr_png_(self):
        return png_of(self)

    def draw(self, renderer: Any) -> None:
        for text in self._given_texts():
            text.set_parse_math(False)  # A folder's name may hold dollar signs, which begin a formula.
            text.set_fontfamily([*rcParams["font.family"], *_japanese_fonts()])
        with warnings.catch_warnings():
            # Without such a font a box takes the character's place.
            warnings.filterwarnings("ignore", r"Glyph \d+", UserWarning)
            super().draw(renderer)

    def _given_texts(self):
        """Return the texts that may hold names from outside: all but the axes' own labels and numbers."""
        legends = [*self.legends, *filter(None, (axes.get_legend() for axes in self.axes))]
        titles = [text for axes in self.axes for text in (axes.title, *axes.texts)]
        return [*self.texts, *titles, *(text for legend in legends for text in legend.get_texts())]


@functools.cache
def _japanese_fonts():
    """Return the fonts with Japanese characters that are installed."""
    return sorted(filter(_JAPANESE_FONT.fullmatch, font_manager.get_font_names()))


def plot_curves(
    *run_dirs: str | Path,
    metric: str | None = None,
    epochs: tuple | None = None,
    value_range: tuple | None = None,
    line: float | None = None,
) -> Picture:
    """Draw training and validation curves of one run or several.

    Args:
        run_dirs: folders of runs, each with a `history.csv`.
        metric: "loss" or "accuracy"; None draws both, side by side.
        epochs: `(first, last)` to zoom to, either of them None for the end of the data.
        value_range: `(low, high)` of the vertical axis, likewise; needs a `metric`.
        line: value of a horizontal guide line, such as 0.9; drawn on `metric`, else on the accuracy.

    Returns:
        A `matplotlib.figure.Figure`, which a notebook shows; `figure.savefig(path)` writes it.

    Raises:
        Error: a folder without a history, a range or metric that is none, or epochs that no run has.
    """
    if not run_dirs:
        raise Error("no run was given; expected one folder of a run or more.")
    if metric is not None and metric not in METRICS:
        raise Error(f"metric is {metric!r}; expected {' or '.join(METRICS)}.")
    if value_range is not None and metric is None:
        raise Error("a value range needs a metric; choose loss or accuracy.")
    if line is not None and not math.isfinite(line):
        raise Error(f"line is {line}; expected a finite number.")
    for name, limits in (("epochs", epochs), ("value_range", value_range)):
        if limits is not None and not _is_range(limits):
            raise Error(f"{name} is {limits!r:.80}; expected two numbers, the lower one first, or None for an end.")
    histories = [read_history(expand(run_dir) / "history.csv") for run_dir in run_dirs]
    histories = dict(zip(run_labels(run_dirs), histories, strict=True))
    (first, last), count = epochs or (None, None), max(len(history["epoch"]) for history in histories.values())
    if count and ((first or 1) > count or (last is not None and last < 1)):
        raise Error(f"epochs is {first}:{last}; expected some of 1 to {count}, the epochs that the runs have.")
    metrics = [metric] if metric else list(METRICS)
    figure = Picture(figsize=(6.4 * len(metrics), 4.4 + height_below(len(histories))), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        shown = line if name == (metric or "accuracy") else None
        draw_curves(axes, histories, name, epochs or (None, None), value_range or (None, None), shown)
        if len(histories) == 1:
            axes.set_title(shortened(next(iter(histories)), 60), fontsize=10)
    return figure


def _is_range(limits):
    if not isinstance(limits, (tuple, list)) or len(limits) != 2:
        return False
    ends = [end for end in limits if end is not None]
    return all(isinstance(end, Real) and math.isfinite(end) for end in ends) and ends == sorted({*ends})


def draw_curves(
    axes: Axes,
    histories: dict[str, History],
    metric: str = "accuracy",
    epochs: tuple = (None, None),
    value_range: tuple = (None, None),
    line: float | None = None,
    training: bool = True,
) -> None:
    """Draw the curves of one metric.

    Args:
        axes: Matplotlib's, empty.
        histories: a dict from a run's label to its history. Colours follow its order; the training of a single run has
            a colour of its own.
        metric: "loss" or "accuracy".
        epochs: `(first, last)`, either of them None for the end of the data.
        value_range: `(low, high)` of the vertical axis, likewise. The legend names what these ranges contain.
        line: value of a horizontal guide line, or None.
        training: whether the training curves are drawn.
    """
    alone, handles = len(histories) == 1, []
    kinds = {"training": metric} if training else {}
    kinds["validation"] = f"val_{metric}"
    styles: dict[str, tuple[Any, str]] = {"training": ("--", COLOURS[1]), "validation": ("-", COLOURS[0])}
    for kind, column in kinds.items():
        dash, own_colour = styles[kind]
        for (label, history), colour in zip(histories.items(), itertools.cycle(COLOURS), strict=False):
            # A single epoch is a point, which a line alone would not show.
            style: dict[str, Any] = {"linewidth": 1.2, "marker": "o" if len(history["epoch"]) == 1 else None}
            style |= {"linestyle": dash, "color": own_colour if alone else colour, "label": f"{label}: {kind}"}
            axes.plot(history["epoch"], history[column], markersize=4, **style)
        if any(_is_in_view(history, column, epochs, value_range) for history in histories.values()):
            handles.append(Line2D([], [], label=kind, linestyle=dash, color=own_colour if alone else "#555555"))
    for (label, history), colour in zip(histories.items(), itertools.cycle(COLOURS), strict=False):
        star = {"color": colour, "marker": "*", "markersize": 11, "linestyle": "", "zorder": 3}
        text = best_in_words(history)
        if metric == "accuracy" and history["epoch"]:
            epoch, value = best_of(history)
            # A star at the edge of the picture is drawn completely.
            is_inside = _is_in_view({"epoch": [epoch], "value": [value]}, "value", epochs, value_range)
            axes.plot(epoch, value, **star, label=f"{label}: best", clip_on=not is_inside)
        if alone and metric == "accuracy":
            handles.append(Line2D([], [], label=text, **star))
        elif not alone:
            short = shortened(label)
            text = f"{short}: {text}" if metric == "accuracy" else short
            handles.append(Line2D([], [], label=text, color=colour, linewidth=2))
    if line is not None:
        axes.axhline(line, color="#555555", linewidth=1, linestyle=":")
    axes.set(xlim=epochs, ylim=value_range, xlabel="epoch", ylabel=metric)
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    axes.grid(alpha=0.25)
    # Below the axes, the padding leaves room for the numbers and the name of the horizontal axis.
    below = {"loc": "upper left", "bbox_to_anchor": (0, 0), "borderaxespad": 5}
    axes.legend(handles=handles, fontsize=8, **(below if height_below(len(histories)) else {}))


def height_below(runs: int) -> float:
    """Return the height, in inches, of a legend below the axes; 0 for a few runs, whose legend is inside."""
    return 0.18 * (runs + 3) if runs > len(COLOURS) else 0.0


def _is_in_view(history, column, epochs, value_range):
    """Return whether a value of a curve is within the ranges; a curve without epochs is."""
    (first, last), (low, high) = (
        (-math.inf if low is None else low, math.inf if high is None else high) for low, high in (epochs, value_range)
    )
    points = zip(history["epoch"], history[column], strict=True)
    return not history["epoch"] or any(first <= epoch <= last and low <= value <= high for epoch, value in points)


def best_in_words(history: History) -> str:
    """Return the best epoch's validation accuracy and the epoch, such as "best 0.9010, epoch 326"."""
    if not history["epoch"]:
        return "no epoch yet"
    best, value = best_of(history)
    return f"best {value:.4f}, epoch {best}"


def png_of(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file, 100 pixels an inch."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    return content.getvalue()


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as the kind of file that the path's ending names; a link, a device or a pipe is kept.

    Raises:
        Error: Matplotlib does not know the ending, or the file cannot be written.
    """
    path = expand(path)
    content = io.BytesIO()
    try:
        figure.savefig(content, format=path.suffix.lstrip(".") or "png", dpi=120)
        if path.exists() and not path.is_file():
            path.write_bytes(content.getvalue())
        else:
            write_atomically(os.path.realpath(path), content.getvalue())
    except ValueError as error:
        raise Error(f"{path}: {error}.") from None
    except OSError as error:
        raise Error(f"{path} cannot be written ({error.strerror}); choose another place or make room.") from None


def save_curves_if_possible(run_dir: str | Path, path: str | Path, info: Callable[[str], None]) -> bytes | None:
    """Draw a run's curves into a file and return its bytes, or report why they could not be drawn and return None."""
    try:
        content = png_of(plot_curves(run_dir))
        write_atomically(path, content)
        return content
    except Exception as error:  # Whatever it is: a picture is no reason to stop.
        info(f"The picture of the curves could not be drawn ({error}); everything else is done.")
        return None
