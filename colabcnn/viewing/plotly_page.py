"""Curves to zoom into and to point at, which Plotly draws in the browser: once shown they need no Python.

Plotly is on Colab but is no requirement of this package, so it is imported where it is used.
"""

import html
from pathlib import Path
from typing import Any

from colabcnn.errors import Error
from colabcnn.store.files import expand, write_atomically
from colabcnn.store.history import read_history
from colabcnn.store.run_list import list_runs
from colabcnn.viewing.plotly_figure import LEGEND_ROW, TOLD_OF_BEST, draw_figure, values_of_best
from colabcnn.viewing.views import best_in_words

# The policy makes the browser refuse whatever would need a network.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; \
style-src 'unsafe-inline'; img-src data: blob:">
<title>{title}</title>
<style>
body {{ margin: 0 auto; max-width: 1400px; padding: 8px 16px; font: 15px/1.5 system-ui, sans-serif; }}
h1 {{ font-size: 1.2rem; overflow-wrap: anywhere; }}
.scroll {{ overflow-x: auto; }}
.curves, .curves > div {{ min-width: 440px; height: max({legend}px + 540px, 88vh); }}
table {{ border-collapse: collapse; margin: 16px 0; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 4px 0 4px 20px; text-align: right; border-bottom: 1px solid #8886; }}
th:first-child {{ padding-left: 0; text-align: left; white-space: nowrap; }}
</style>
</head>
<body>
<h1>{title}</h1>
<div class="scroll"><div class="curves">{figure}</div></div>
<div class="scroll">
<table>
{rows}
</table>
</div>
</body>
</html>
"""


def interactive_figure(*run_dirs: str | Path) -> Any:
    """Draw training and validation curves of one run or several, to zoom into and to point at.

    Buttons choose between accuracy and loss, and between the article's views: the whole run, the accuracy enlarged,
    and the accuracy around the best epoch of all runs. A line marks an accuracy of 0.9.

    Args:
        run_dirs: folders of runs, and folders with runs at any depth below them, as for `list_runs`.

    Returns:
        A `plotly.graph_objects.Figure`, which a notebook shows.

    Raises:
        Error: Plotly is not installed, there is no run, or a history cannot be read.
    """
    return draw_figure(_plotly(), _read(run_dirs))


def export_html(*run_dirs: str | Path, path: str | Path = "curves.html") -> Path:
    """Write the interactive curves, and a table of the best epochs, as one page that needs nothing else.

    Args:
        run_dirs: as for `interactive_figure`.
        path: the file, some 5 MB, replaced if it is there. A browser opens it without a network or Python.

    Returns:
        The file's `pathlib.Path`.

    Raises:
        Error: as for `interactive_figure`, or the file cannot be written.
    """
    path, histories = expand(path), _read(run_dirs)
    figure = draw_figure(_plotly(), histories)
    figure.update_layout(height=None)  # The page's own follows the window.
    try:
        write_atomically(path, _page(figure, histories))
    except OSError as error:
        raise Error(f"{path} cannot be written ({error.strerror}); choose another place or make room.") from None
    return path


def _plotly():
    try:
        import plotly.graph_objects
    except ImportError:
        raise Error("Plotly is not installed; the interactive curves need it: pip install plotly") from None
    return plotly.graph_objects


def _read(run_dirs):
    """Return a dict from label to history; a name that is not Unicode is made so, for a page to hold it."""
    return {
        label.encode(errors="replace").decode(): read_history(run_dir / "history.csv")
        for label, run_dir in list_runs(*run_dirs).items()
    }


def _page(figure, histories):
    shown = next(iter(histories)) if len(histories) == 1 else f"{len(histories)} runs"
    drawn = figure.to_html(
        full_html=False,
        include_plotlyjs=True,
        include_mathjax=False,
        div_id="curves",
        config={"responsive": True, "displaylogo": False},
    )
    rows = [
        _row("run", TOLD_OF_BEST, "th"),
        *(_row(label, _cells(history), "td") for label, history in histories.items()),
    ]
    return _PAGE.format(
        title=html.escape(f"Curves of {shown}"), figure=drawn, rows="\n".join(rows), legend=LEGEND_ROW * len(histories)
    )


def _cells(history):
    values = values_of_best(history)
    if not values:
        return [best_in_words(history)] + [""] * (len(TOLD_OF_BEST) - 1)
    return [str(values.pop("best epoch")), *(f"{value:.4f}" for value in values.values())]


def _row(label, cells, tag):
    cells = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
    return f"<tr><th>{html.escape(label)}</th>{cells}</tr>"
