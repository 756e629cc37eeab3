"""The explorer as a page of its own, which needs neither Python nor a network."""

import html
from pathlib import Path

from colabcnn.errors import Error
from colabcnn.store.files import expand, write_atomically
from colabcnn.store.history import best_of
from colabcnn.store.run_list import list_runs
from colabcnn.viewing.browser_data import content_html, data_of, figure_html, plotly_code, read_runs

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
body {{ margin: 0 auto; max-width: 1800px; padding: 4px 12px; font: 14px/1.5 system-ui, sans-serif;
  --cc-height: clamp(300px, calc(100vh - 260px), 65vh); }}
h1 {{ font-size: 1.2rem; overflow-wrap: anywhere; margin: 4px 0; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; margin: 16px 0; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 4px 20px 4px 0; text-align: left; border-bottom: 1px solid #8886; }}
</style>
</head>
<body>
<h1>{title}</h1>
{explorer}
<div class="scroll">
<table>
{rows}
</table>
</div>
</body>
</html>
"""
_COLUMNS = ("run", "last validation accuracy", "best (epoch)", "what it is")


def export_html(*run_dirs: str | Path, path: str | Path = "curves.html", view: str = "") -> Path:
    """Write the explorer, and a table of the runs, as one page that needs nothing else.

    Args:
        run_dirs, view: as for `explore`. What a reader chooses in the page is also in its address, to be copied.
        path: the file, `.html` or `.htm`, some 5 MB, replaced if it exists; its folder is made if missing. A browser
            opens it offline, without Python.

    Returns:
        The file's `pathlib.Path`.

    Raises:
        Error: as for `explore`, another ending, or the file cannot be written.
    """
    path = expand(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise Error(f"{path} is no name of a page; expected one that ends in .html.")
    runs = read_runs(list_runs(*run_dirs))
    data = data_of(runs, view=view, page=True)
    shown = next(iter(runs)) if len(runs) == 1 else f"{len(runs)} runs"
    explorer = f"<script>{plotly_code()}</script>{content_html('page', runs, data)}{figure_html('page')}"
    rows = "\n".join(
        [_row(_COLUMNS, "th"), *(_row(_cells(*pair), "td") for pair in zip(runs.values(), data["runs"], strict=True))]
    )
    page = _PAGE.format(title=html.escape(f"Curves of {shown}"), explorer=explorer, rows=rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, page.encode(errors="replace"))  # A shared run's device may be no Unicode.
    except OSError as error:
        raise Error(f"{path} cannot be written ({error.strerror}); choose another place or make room.") from None
    return path


def _cells(run, entry):
    history = getattr(run, "history", run)
    if not history["epoch"]:
        return entry["label"], "no epoch yet", "", entry["details"]
    best, value = best_of(history)
    return entry["label"], f"{history['val_accuracy'][-1]:.4f}", f"{value:.4f} ({best})", entry["details"]


def _row(cells, tag):
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
