"""The explorer in a notebook: the browser draws it, and ipywidgets read runs again."""

import uuid
from pathlib import Path
from typing import Any

from colabcnn.errors import Error
from colabcnn.store.run_list import list_runs
from colabcnn.viewing.browser_data import as_unicode, content_html, data_of, figure_html, read_runs


def explore(*run_dirs: str | Path, view: str = "") -> "Explorer":
    """Show the curves of one run or several, to look closely at.

    Args:
        run_dirs: folders of runs, and folders with runs at any depth below them. The runs may still be training:
            Refresh reads them again, and finds new ones.
        view: what is shown first, as the button "Copy this view" writes it, such as "metric=loss&scale=log".

    Returns:
        An `Explorer`; as the last line of a notebook's cell it shows itself. The browser draws it and needs no Python
        for it, so it also works while Python trains, and in a saved notebook.

    Raises:
        Error: a folder that does not exist or holds no run, or runs none of which can be read.
    """
    return Explorer(*run_dirs, view=view)


class Explorer:
    """Interactive curves; see `explore`.

    Args:
        run_dirs, view: as for `explore`.
    """

    def __init__(self, *run_dirs: str | Path, view: str = ""):
        self._run_dirs = list(run_dirs)
        self._view = view
        self._numbers = {}
        self._output: Any = None
        self._read(self._run_dirs)
        self._key = uuid.uuid4().hex

    def refresh(self, *more_dirs: str | Path) -> None:
        """Read the runs again; what is shown is refreshed and keeps its view.

        Args:
            more_dirs: folders to show as well, as for `explore`.

        Raises:
            Error: as for `explore`; what is shown stays.
        """
        run_dirs = [*self._run_dirs, *more_dirs]
        self._read(run_dirs)
        self._run_dirs = run_dirs
        if self._output is not None:
            self._output.update({"text/html": self._data_html()}, raw=True)

    def _read(self, run_dirs):
        paths = list_runs(*run_dirs)
        self._runs = read_runs(paths)
        # Another folder beside it may give a run a longer label: what is switched off stays off by its number.
        numbers = (self._numbers.setdefault(path.resolve(), len(self._numbers)) for path in paths.values())
        self._ids = dict(zip(map(as_unicode, paths), numbers, strict=True))

    def _data_html(self):
        folders = "".join(f"{str(run_dir)!r}, " for run_dir in self._run_dirs)
        data = data_of(self._runs, view=self._view, call=f"colabcnn.explore({folders}view=")
        for entry in data["runs"]:
            entry["id"] = self._ids[entry["label"]]
        return content_html(self._key, self._runs, data)

    def _ipython_display_(self):
        from IPython.display import display

        # A saved notebook has no text in place of the controls, which work only beside a kernel.
        widget = {"version_major": 2, "version_minor": 0, "model_id": self._controls().model_id}
        display({"application/vnd.jupyter.widget-view+json": widget, "text/plain": ""}, raw=True)
        # Two outputs: a refresh replaces the data alone, since a figure that is shown again loses its zoom.
        self._output = display({"text/html": self._data_html()}, raw=True, display_id=True)
        display({"text/html": figure_html(self._key)}, raw=True)

    def _controls(self):
        """Return what needs Python: reading the runs again, and another folder."""
        import ipywidgets as widgets

        folder = widgets.Text(placeholder="another folder of runs", layout=widgets.Layout(width="20em"))
        button = widgets.Button(description="Refresh", tooltip="Read the runs again, and those of the folder beside")
        # As a value, not as a description: that would be taken for HTML.
        message = widgets.Text(disabled=True, layout=widgets.Layout(flex="1 1 auto", visibility="hidden"))

        def refresh(_):
            try:
                self.refresh(*filter(None, [folder.value.strip()]))
                left_out = len(self._ids) - len(self._runs)
                others = f"; {left_out} could not be read" if left_out else ""
                folder.value, message.value = "", f"{len(self._runs)} runs were read{others}."
            except Error as error:
                message.value = str(error)
            message.layout.visibility = "visible"

        button.on_click(refresh)
        return widgets.HBox([button, folder, message])
