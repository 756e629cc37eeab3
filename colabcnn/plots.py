"""A run's curves, drawn by Matplotlib's object interface: no pyplot, no global state."""

import io
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from colabcnn.errors import Error
from colabcnn.history import best_epoch, read_history
from colabcnn.storage import write_atomically

METRICS = ("loss", "accuracy")
# Okabe and Ito's colours, which colour-blind people can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def plot_curves(*run_dirs, metric=None, epochs=None, value_range=None, line=None):
    """Draw training and validation curves of one run or several.

    Args:
        run_dirs: folders of runs, each with a `history.csv`.
        metric: "loss" or "accuracy"; None draws both, side by side.
        epochs: `(first, last)` to zoom to, either of them None for the end of the data.
        value_range: `(low, high)` of the vertical axis, likewise; needs a `metric`.
        line: value of a horizontal guide line, such as 0.9; drawn on `metric`, else on the accuracy.

    Returns:
        A `matplotlib.figure.Figure`; `figure.savefig(path)` writes it.

    Raises:
        Error: a folder without a history, or a range or metric that is none.
    """
    if not run_dirs:
        raise Error("no run was given; expected one folder of a run or more.")
    if metric is not None and metric not in METRICS:
        raise Error(f"metric is {metric!r}; expected {' or '.join(METRICS)}.")
    if value_range is not None and metric is None:
        raise Error("a value range needs a metric; choose loss or accuracy.")
    for name, limits in (("epochs", epochs), ("value_range", value_range)):
        if limits is not None and None not in limits and not limits[0] < limits[1]:
            raise Error(f"{name} is {limits[0]}:{limits[1]}; expected the lower end first.")
    histories = {_label(run_dir, run_dirs): read_history(Path(run_dir) / "history.csv") for run_dir in run_dirs}
    metrics = [metric] if metric else list(METRICS)
    figure = Figure(figsize=(6.4 * len(metrics), 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        _draw(axes, histories, name, line if name == (metric or "accuracy") else None)
        axes.set_xlim(*(epochs or (None, None)))
        axes.set_ylim(*(value_range or (None, None)))
    return figure


def save_figure(figure, path):
    """Write a figure as the kind of file that the path's ending names.

    Raises:
        Error: Matplotlib does not know the ending, or the file cannot be written.
    """
    path = Path(path)
    content = io.BytesIO()
    try:
        figure.savefig(content, format=path.suffix.lstrip(".") or "png", dpi=120)
        write_atomically(path, content.getvalue())
    except ValueError as error:
        raise Error(f"{path}: {error}.") from None
    except OSError as error:
        raise Error(f"{path} cannot be written ({error.strerror}); choose another place or make room.") from None


def save_curves(run_dir, path):
    """Refresh a run's picture: loss and accuracy side by side, with the best epoch marked."""
    content = io.BytesIO()
    plot_curves(run_dir).savefig(content, format="png", dpi=100)
    write_atomically(path, content.getvalue())


def _draw(axes, histories, metric, line):
    several = len(histories) > 1
    for index, (label, history) in enumerate(histories.items()):
        epochs, validation = history["epoch"], history[f"val_{metric}"]
        train_colour, val_colour = (COLOURS[index % len(COLOURS)],) * 2 if several else COLOURS[:2]
        prefix = f"{label}: " if several else ""
        # A single epoch is a point, which a line alone would not show.
        marker = "o" if len(epochs) == 1 else None
        style = {"linewidth": 1.2, "marker": marker, "markersize": 4}
        axes.plot(epochs, history[metric], color=train_colour, linestyle="--", label=f"{prefix}training", **style)
        axes.plot(epochs, validation, color=val_colour, label=f"{prefix}validation", **style)
        best = best_epoch(history)
        if best is not None and metric == "accuracy":
            value = validation[epochs.index(best)]
            axes.plot(best, value, "*", color=val_colour, markersize=11, label=f"best {value:.4f}, epoch {best}")
    if line is not None:
        axes.axhline(line, color="#555555", linewidth=1, linestyle=":")
    if not several:
        axes.set_title(next(iter(histories)), fontsize=10)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("epoch")
    axes.set_ylabel(metric)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)


def _label(run_dir, run_dirs):
    """Return the shortest end of the path that tells this run from the others; a seed's folder takes its parent's."""
    parts = Path(run_dir).resolve().parts
    others = [Path(other).resolve().parts for other in run_dirs if Path(other).resolve().parts != parts]
    shortest = 2 if parts[-1].startswith("seed-") else 1
    for count in range(shortest, len(parts)):
        if all(other[-count:] != parts[-count:] for other in others):
            return "/".join(parts[-count:])
    return str(run_dir)
