"""What the browser needs of runs to draw them: the curves as base64, each run's name, settings and origin in words."""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from colabcnn import output
from colabcnn.errors import Error
from colabcnn.experiments.catalog import EXPERIMENTS
from colabcnn.store.history import COLUMNS, History, read_history
from colabcnn.store.run_record import first_difference, identity_of
from colabcnn.viewing.curves import Picture, draw_curves, height_below, png_of
from colabcnn.viewing.measured_runs import MeasuredRun, read_measured_run

# The fallback has no list of runs beside it; a longer legend would hide its curves.
_LONGEST_LEGEND = 10


def read_runs(runs: dict[str, Path]) -> dict[str, MeasuredRun | History]:
    """Read runs, as `list_runs` returns them.

    Returns:
        A dict from label to `MeasuredRun`, or to the history alone where there is no `run.json`. A label that is not
        Unicode is made so, for a page to hold it. Of several runs, one that cannot be read is left out, with a printed
        line.

    Raises:
        Error: no run can be read.
    """
    found, reasons = {}, {}
    for label, run_dir in runs.items():
        try:
            found[as_unicode(label)] = read_measured_run(run_dir) or read_history(run_dir / "history.csv")
        except (Error, OSError) as error:
            reasons[label] = str(error)
    if reasons and not found:
        raise Error(next(iter(reasons.values())))
    for label, reason in reasons.items():
        output.write(f"{label} is left out: {reason}")
    return found


def as_unicode(label: str) -> str:
    """Return a label with "?" in place of what is no Unicode."""
    return label.encode(errors="replace").decode()


def data_of(runs: dict[str, MeasuredRun | History], **more: Any) -> dict[str, Any]:
    """Return what `explorer.js` draws, to be written as JSON.

    Args:
        runs: as `read_runs` returns them.
        more: other keys: "view", a text as the explorer's own "Copy this view" writes it; "call", the begin of a call
            that shows it again; "page", whether it is a page of its own; "references", a list of dicts with "label" and
            "value", the accuracies of dotted lines.
    """
    entries = [_entry(label, run) for label, run in runs.items()]
    _part_groups(entries, runs.values())
    several = len({entry["name"] for entry in entries}) > 1
    for entry in entries:
        # Among other experiments a run on few or synthetic images would be compared with full ones.
        entry["off"] = several and entry["partial"]
    defaults = {"references": [], "view": "", "call": "", "page": False}
    return {"runs": entries, "plotly": _plotly_source(), **defaults, **more}


def _part_groups(entries, runs):
    """Put runs of one name into groups of their own if origin or settings differ, named by the first difference.

    A second run of one seed has a group of its own, too: a mean over seeds has each of them once.
    """
    firsts, seeds, pairs = {}, set(), [*zip(entries, runs, strict=True)]
    recorded = {entry["group"] for entry, run in pairs if isinstance(run, MeasuredRun)}
    for entry, run in pairs:
        if not isinstance(run, MeasuredRun):
            entry["group"] += ", no record" if entry["group"] in recorded else ""
            continue
        identity = {"origin": run.origin, **identity_of(run.record.experiment, precision=run.record.precision)}
        while difference := first_difference(identity, firsts.setdefault(entry["group"], identity)):
            name, value, _ = difference
            what = f"{value}" if name == "origin" else f"{name.removeprefix('experiment.')} {value}"
            entry["group"] += f", {what}"
            entry["notes"] = ", ".join(filter(None, (entry["notes"], what)))
        while (entry["group"], run.record.seed) in seeds:
            entry["group"] += ", again"
        seeds.add((entry["group"], run.record.seed))


def _entry(label, run):
    history = run.history if isinstance(run, MeasuredRun) else run
    count = len(history["epoch"])
    columns = [name for name in COLUMNS if name != "epoch" or history[name] != list(range(1, count + 1))]
    unknown = {"name": None, "notes": "", "details": "", "partial": False, "steps": None, "timed": True}
    curves = {name: _column(history[name]) for name in columns}
    entry = {"label": label, "group": re.sub(r"/seed-\d+$", "", label), "epochs": count, "curves": curves, **unknown}
    return entry | (_settings(run) if isinstance(run, MeasuredRun) else {})


def _settings(run):
    record, images = run.record, run.images_in_words()
    name, planned = record.experiment.name, record.experiment.epochs
    usual = EXPERIMENTS[name].epochs if name in EXPERIMENTS else planned
    notes = ([f"{planned} of {usual} epochs"] if planned != usual else []) + images
    dates = [start.time[:10] for start in record.starts[-1:] if start.time]
    sizes = images or [f"{record.train_size:,} training images", f"validated on {record.val_size:,}"]
    done, beside = f"{run.length} of {planned} epochs", [] if run.is_timed else ["beside other work"]
    return {
        "name": name,
        # Seeds are averaged only with seeds of the same settings.
        "group": ", ".join([name, *notes]),
        "notes": ", ".join(notes),
        "details": ", ".join([done, *sizes, f"seed {record.seed}", *run.devices, *beside, *dates, run.origin]),
        "partial": len(images) > (record.holdout > 0),  # Held-out images alone make no run a smaller one.
        "steps": math.ceil(record.train_size / record.experiment.batch_size),
        "timed": run.is_timed,
    }


def _column(values):
    """Return float32 values as base64, a third of their decimals' size; equal ones as one number."""
    with np.errstate(over="ignore"):  # A loss may exceed float32: infinite there.
        array = np.asarray(values, "<f4")
    if len(array) and (array == array[0]).all():
        return float(array[0])
    return base64.b64encode(array.tobytes()).decode()


@functools.cache
def plotly_code() -> str:
    """Return plotly.js, of the installed Plotly."""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


@functools.cache
def _plotly_source():
    """Return the address of plotly.js and its digest: the CDN has the same file as the installed package."""
    from plotly.offline import get_plotlyjs_version

    digest = base64.b64encode(hashlib.sha256(plotly_code().encode()).digest()).decode()
    return {"url": f"https://cdn.plot.ly/plotly-{get_plotlyjs_version()}.min.js", "integrity": f"sha256-{digest}"}


def figure_html(key: str) -> str:
    """Return the HTML of an explorer without its data.

    Args:
        key: the explorer's name in its page, of letters, digits and "-".
    """
    style, code = (Path(__file__).with_name(f"explorer.{kind}").read_text("utf-8") for kind in ("css", "js"))
    start = f'window.colabcnnExplorer.start("{key}");'
    return f'<style>{style}</style><div class="colabcnn" id="colabcnn-{key}"></div><script>{code}{start}</script>'


def content_html(key: str, runs: dict[str, MeasuredRun | History], data: dict[str, Any]) -> str:
    """Return the HTML of an explorer's data, and of a picture of the runs for where no script runs."""
    histories = {label: run.history if isinstance(run, MeasuredRun) else run for label, run in runs.items()}
    has_legend = len(histories) <= _LONGEST_LEGEND
    height = 4.6 + (height_below(len(histories)) if has_legend else 0)
    figure = Picture(figsize=(9, height), layout="constrained")
    axes = figure.subplots()
    draw_curves(axes, histories, line=0.9, training=len(histories) <= 3)
    if not has_legend:
        axes.legend().remove()
    return picture_html(key, png_of(figure), runs) + data_html(key, data)


def picture_html(key: str, png: bytes, labels: Iterable[str]) -> str:
    """Return the HTML of a picture that is seen where no script runs; the explorer hides it.

    Args:
        key: as for `figure_html`.
        png: the picture.
        labels: those of the runs.
    """
    alt, source = html.escape(f"Curves of {', '.join(labels)}"), base64.b64encode(png).decode()
    image = f'<img alt="{alt}" style="max-width:100%" src="data:image/png;base64,{source}">'
    return f'<div class="colabcnn-static-{key}">{image}</div>'


def data_html(key: str, data: dict[str, Any]) -> str:
    """Return the HTML that gives an explorer its data, or new data.

    Args:
        key: as for `figure_html`.
        data: as `data_of` returns it.
    """
    # `<` would end the script, and begin markup.
    text = json.dumps(data).replace("<", "\\u003c")
    return (
        "<script>(function (key, data) {"
        "window.colabcnnStore = window.colabcnnStore || {};"
        "if (window.colabcnnExplorer) window.colabcnnExplorer.update(key, data);"
        f'else window.colabcnnStore[key] = {{ data: data }};}})("{key}", {text});</script>'
    )
