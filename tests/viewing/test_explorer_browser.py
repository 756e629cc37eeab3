"""The explorer in a real browser, by mouse and keyboard: the classic Notebook or JupyterLab, whichever is installed."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from importlib import metadata
from pathlib import Path

import pytest

from colabcnn.store.history import write_history
from support.runs import history_of

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
if not shutil.which("chromium"):
    pytest.skip("Chromium is not installed: apt-get install chromium", allow_module_level=True)

pytestmark = [pytest.mark.versions, pytest.mark.browser]

CLASSIC = bool(importlib.util.find_spec("notebook")) and metadata.version("notebook").startswith("6.")
if not CLASSIC and not importlib.util.find_spec("jupyterlab"):
    pytest.skip("JupyterLab is not installed: pip install jupyterlab", allow_module_level=True)
HANDLE = ".ui-slider-handle, .noUi-handle"  # jQuery's, and that of its successor.
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of 400 epochs, whose best epochs are 100 and 300."""
    folder = tmp_path_factory.mktemp("runs")
    for name, best in (("02_augmentation", 100), ("06_final", 300)):
        (folder / name / "seed-0").mkdir(parents=True)
        values = [0.5 + 0.3 * epoch / 400 for epoch in range(400)]
        values[best - 1] = 0.86 + best / 10000
        write_history(folder / name / "seed-0" / "history.csv", history_of(*values))
    return folder


@pytest.fixture(scope="module")
def server(runs, tmp_path_factory):
    """A Jupyter server's address, with a notebook that explores the runs."""
    folder = tmp_path_factory.mktemp("notebooks")
    code = f"import colabcnn\nexplorer = colabcnn.explore({str(runs)!r})\nexplorer"
    cell = {"cell_type": "code", "execution_count": None, "id": "a", "metadata": {}, "outputs": [], "source": code}
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    notebook = {"cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (folder / "explore.ipynb").write_text(json.dumps(notebook))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    application, settings = ("notebook", "NotebookApp") if CLASSIC else ("jupyterlab", "ServerApp")
    command = [sys.executable, "-m", application, "--no-browser", f"--port={port}", "--ip=127.0.0.1"]
    command += ["--allow-root", f"--{settings}.token=", f"--{settings}.password=", f"--notebook-dir={folder}"]
    command += [] if CLASSIC else ["--LabApp.news_url=", "--LabApp.check_for_updates_class="]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # The kernel is this Python, too.
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "JUPYTER_CONFIG_DIR": str(folder / "config")}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 90
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5)
                break
            except OSError:
                time.sleep(0.3)
        yield address
    finally:
        process.terminate()
        process.wait()


def run_all(page, server):
    """Open the notebook and run its cell."""
    if CLASSIC:
        # The page first requests the widgets of an earlier visit from the kernel. A widget that a cell makes before
        # that is done appears twice, and one of the two stays empty.
        with page.expect_console_message(lambda message: "fetching individual model state" in message.text):
            page.goto(f"{server}/notebooks/explore.ipynb")
        kernel = "window.Jupyter?.notebook?.kernel"
        ready = f"{kernel}?.widget_manager && {kernel}.is_connected() && Jupyter.notebook._fully_loaded"
        page.wait_for_function(ready)
        page.evaluate("Jupyter.notebook.execute_all_cells()")
    else:
        page.goto(f"{server}/lab/tree/explore.ipynb?reset")
        page.get_by_text("| Idle").wait_for()
        page.locator(".jp-Notebook .jp-Cell .cm-content").click()
        page.keyboard.press("Shift+Enter")


@pytest.fixture(scope="module")
def page(server):
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        page = browser.new_page(viewport={"width": 1200, "height": 1100})
        page.set_default_timeout(60_000)
        run_all(page, server)
        page.wait_for_selector("img.widget-image")
        page.set_default_timeout(15_000)
        yield page
        browser.close()


class Explorer:
    """The explorer as a person sees and uses it."""

    def __init__(self, page):
        self.page = page

    @property
    def caption(self):
        return self.page.locator(".widget-html-content", has_text=" from ").first.text_content()

    @property
    def picture(self):
        """The picture's bytes, as the browser has them."""
        read = "image => fetch(image.src).then(it => it.arrayBuffer()).then(it => Array.from(new Uint8Array(it)))"
        return bytes(self.page.locator("img.widget-image").evaluate(read))

    def wait(self, caption):
        self.page.locator(".widget-html-content", has_text=caption).first.wait_for()

    def changes(self, act, caption):
        """Act, wait for the caption, and check that the picture has changed."""
        before = self.picture
        act()
        self.wait(caption)
        deadline = time.monotonic() + 10
        while self.picture == before:
            assert time.monotonic() < deadline, "the picture stayed"
            self.page.wait_for_timeout(50)
        assert self.picture[:8] == b"\x89PNG\r\n\x1a\n"

    def press(self, name):
        self.page.get_by_role("button", name=name, exact=True).click()

    def type(self, label, end, value):
        """Type a number into the field beside a slider."""
        row = self.page.locator(".widget-hbox", has=self.page.get_by_text(label, exact=True))
        field = row.last.locator("input[type=number]").nth(end)
        field.fill(str(value))
        field.press("Enter")
        field.press("Tab")

    def handle(self, label, end):
        row = self.page.locator(".widget-hbox", has=self.page.get_by_text(label, exact=True))
        return row.last.locator(HANDLE).nth(end)

    def drag(self, label, end, pixels, steps=10):
        box = self.handle(label, end).bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + pixels, y, steps=steps)
        self.page.mouse.up()


@pytest.fixture
def explorer(page):
    explorer = Explorer(page)
    explorer.press("Loss")
    explorer.wait("loss from")
    explorer.press("Accuracy")
    explorer.wait("accuracy from 0 to 1, epochs 1 to 400")
    return explorer


def test_buttons_show_the_articles_views_and_go_back(explorer):
    explorer.changes(lambda: explorer.press("Around the best"), "accuracy from 0.86 to 0.91, epochs 275 to 325")
    explorer.changes(lambda: explorer.press("Zoom out"), "epochs 249 to 351")
    explorer.changes(lambda: explorer.press("Back"), "accuracy from 0.86 to 0.91, epochs 275 to 325")
    explorer.changes(lambda: explorer.press("Enlarged"), "accuracy from 0.74 to 0.99, epochs 1 to 400")
    explorer.changes(lambda: explorer.press("Loss"), "loss from")


def test_typed_numbers_zoom(explorer):
    explorer.changes(lambda: explorer.type("epochs", 0, 250), "epochs 250 to 400")
    explorer.changes(lambda: explorer.type("epochs", 1, 320), "epochs 250 to 320")
    explorer.changes(lambda: explorer.type("values", 0, 0.85), "accuracy from 0.85 to 1")


def test_handles_zoom_by_mouse_and_keyboard(explorer):
    explorer.changes(lambda: explorer.drag("epochs", 0, 200), "epochs")
    first = int(explorer.caption.split("epochs ")[1].split(" ")[0])
    assert 50 < first < 300
    explorer.handle("epochs", 0).focus()
    explorer.changes(lambda: explorer.page.keyboard.press("ArrowRight"), f"epochs {first + 1} to 400")
    explorer.changes(lambda: explorer.drag("values", 1, -200), "epochs")
    assert "to 1," not in explorer.caption


def test_fast_drag_leaves_no_queue_of_redraws(explorer):
    count = "window.drawn = 0; new MutationObserver(() => window.drawn++).observe("
    explorer.page.evaluate(count + "document.querySelector('img.widget-image'), {attributes: true})")
    explorer.drag("epochs", 0, 300, steps=150)
    explorer.page.wait_for_timeout(1500)
    settled, drawn = explorer.caption, explorer.page.evaluate("window.drawn")
    explorer.page.wait_for_timeout(1000)
    assert (explorer.caption, explorer.page.evaluate("window.drawn")) == (settled, drawn)
    assert 0 < drawn < 75


def test_runs_curves_smoothing_and_line_can_be_switched(explorer):
    for label in ("06_final/seed-0: best 0.8900, epoch 300", "training (dashed)", "validation (solid)", "line at"):
        box = explorer.page.locator("label", has_text=label).locator("input[type=checkbox]")
        explorer.changes(box.click, "accuracy from")
        explorer.changes(box.click, "accuracy from")
    explorer.handle("smoothing", 0).focus()
    explorer.changes(lambda: explorer.page.keyboard.press("ArrowRight"), "accuracy from")


def test_metric_can_be_chosen_by_the_keyboard(explorer):
    toggle = explorer.page.locator("button.widget-toggle-button", has_text="loss")
    toggle.focus()
    explorer.changes(lambda: explorer.page.keyboard.press("Enter"), "loss from")


def test_picture_is_saved_to_the_reported_path(explorer, tmp_path):
    for name in ("curves.svg", "curves.png"):
        explorer.page.locator(".widget-text input[type=text]").fill(str(tmp_path / name))
        explorer.press("Save")
        explorer.page.locator(".widget-html-content", has_text=f"Saved as {tmp_path / name}").wait_for()
        assert (tmp_path / name).stat().st_size > 10_000
    explorer.page.locator(".widget-text input[type=text]").fill(str(tmp_path / "nowhere" / "curves.png"))
    explorer.press("Save")
    explorer.page.locator(".widget-html-content", has_text="cannot be written").wait_for()


def test_running_run_is_refreshed(explorer, runs):
    history = runs / "06_final" / "seed-0" / "history.csv"
    before = history.read_text()
    try:
        write_history(history, history_of(*(0.5 + 0.3 * epoch / 400 for epoch in range(500))))
        explorer.changes(lambda: explorer.press("Refresh"), "epochs 1 to 500")
    finally:
        history.write_text(before)
        explorer.press("Refresh")
        explorer.wait("epochs 1 to 400")
