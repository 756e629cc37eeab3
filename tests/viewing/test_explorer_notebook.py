"""The explorer in notebooks, in a real browser: in the classic Notebook or JupyterLab, saved, converted, in a frame."""

import html
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from importlib import metadata
from pathlib import Path

import pytest

from colabcnn.store.history import write_history
from colabcnn.viewing.browser_data import plotly_code
from support.explorer_page import ExplorerPage, saturating, write_run

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
pytestmark = [pytest.mark.versions, pytest.mark.browser, pytest.mark.notebook]

CLASSIC = bool(importlib.util.find_spec("notebook")) and metadata.version("notebook").startswith("6.")
if not CLASSIC and not importlib.util.find_spec("jupyterlab"):
    pytest.skip("JupyterLab is not installed: pip install jupyterlab", allow_module_level=True)
ROOT = Path(__file__).resolve().parents[2]
TRAIN = """
import time
import colabcnn
from dataclasses import replace
import keras

small = replace(colabcnn.find_experiment("06_final"), name="small", kernel_sizes=(3,), filters=(4, 8), batch_size=16)
slowly = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: time.sleep({pause}))
options = {{"data": "synthetic", "train_size": 64, "val_size": 32, "epochs": {epochs}, "callbacks": [slowly]}}
result = colabcnn.run(small, {folder!r}, **options)
"""


def write_notebook(path, *sources):
    cells = [
        {
            "cell_type": "code",
            "execution_count": None,
            "id": f"c{index}",
            "metadata": {},
            "outputs": [],
            "source": source,
        }
        for index, source in enumerate(sources)
    ]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    path.write_text(json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two runs of 400 epochs, and the notebooks."""
    folder = tmp_path_factory.mktemp("notebooks")
    for name, best in (("02_augmentation", 100), ("06_final", 300)):
        write_run(folder / "runs" / name / "seed-0", saturating(0.8, best, epochs=400, best=best))
    explore = f"import colabcnn\ncolabcnn.explore({str(folder / 'runs')!r})"
    write_notebook(folder / "explore.ipynb", explore)
    write_notebook(folder / "train.ipynb", TRAIN.format(pause=0.25, epochs=300, folder=str(folder / "live")))
    short = TRAIN.format(pause=0, epochs=3, folder=str(folder / "short"))
    write_notebook(folder / "executed.ipynb", short, short, explore)
    return folder


@pytest.fixture(scope="module")
def environment(folder):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # The kernel is this Python, too.
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "JUPYTER_CONFIG_DIR": str(folder / "config")}


@pytest.fixture(scope="module")
def server(folder, environment):
    """A Jupyter server's address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    application, settings = ("notebook", "NotebookApp") if CLASSIC else ("jupyterlab", "ServerApp")
    command = [sys.executable, "-m", application, "--no-browser", f"--port={port}", "--ip=127.0.0.1"]
    command += ["--allow-root", f"--{settings}.token=", f"--{settings}.password=", f"--notebook-dir={folder}"]
    command += [] if CLASSIC else ["--LabApp.news_url=", "--LabApp.check_for_updates_class="]
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


def new_page(browser, **options):
    """Return a page for which the CDN has the installed package's plotly.js."""
    page = browser.new_context(viewport={"width": 1200, "height": 1100}, **options).new_page()
    answer = {"body": plotly_code(), "headers": {"Access-Control-Allow-Origin": "*"}, "content_type": "text/javascript"}
    page.route("https://cdn.plot.ly/**", lambda route: route.fulfill(**answer))
    page.set_default_timeout(60_000)
    return page


def run_all(page, server, name):
    """Open a notebook and run its cell."""
    if CLASSIC:
        # The page first requests the widgets of an earlier visit from the kernel. A widget that a cell makes before
        # that is done appears twice, and one of the two stays empty.
        with page.expect_console_message(lambda message: "fetching individual model state" in message.text):
            page.goto(f"{server}/notebooks/{name}")
        kernel = "window.Jupyter?.notebook?.kernel"
        page.wait_for_function(f"{kernel}?.widget_manager && {kernel}.is_connected() && Jupyter.notebook._fully_loaded")
        page.evaluate("Jupyter.notebook.execute_all_cells()")
    else:
        page.goto(f"{server}/lab/tree/{name}?reset", timeout=180_000)
        page.get_by_text("| Idle").wait_for(timeout=180_000)
        page.locator(".jp-Notebook .jp-Cell .cm-content").click()
        page.keyboard.press("Shift+Enter")
    try:
        return ExplorerPage(page).wait_until_drawn()
    except playwright.TimeoutError:
        raise AssertionError(page.inner_text("body")) from None  # The cell's output is among it.


def test_explorer_is_zoomed_and_refreshed_with_its_view(browser, server, folder):
    page = new_page(browser)
    shown = run_all(page, server, "explore.ipynb")
    assert page.locator("img[alt^='Curves of']").is_hidden()
    shown.frame.locator(".cc-plot").scroll_into_view_if_needed()
    shown.drag((100, 0.8), (200, 0.5))
    shown.wait("explorer.view.xrange")
    shown.frame.locator(".cc-plot").focus()
    page.keyboard.press("ArrowRight")  # Neither notebook takes it for a shortcut of its own.
    page.keyboard.press("Home")
    shown.wait("!explorer.view.xrange && explorer.back.length === 3")
    page.keyboard.press("Backspace")
    view = shown.view
    assert view["xrange"]
    history = folder / "runs" / "06_final" / "seed-0" / "history.csv"
    write_history(history, saturating(0.8, 300, epochs=500, best=300))
    page.get_by_role("button", name="Refresh", exact=True).click()
    shown.wait("explorer.runs[1].epochs === 500")
    assert shown.view == view
    write_run(folder / "others" / "third", saturating(0.5, 7, epochs=10))
    page.get_by_placeholder("another folder of runs").fill(str(folder / "nowhere"))
    page.get_by_placeholder("another folder of runs").press("Tab")
    page.get_by_role("button", name="Refresh", exact=True).click()
    message = "[...document.querySelectorAll('input')].some((field) => field.value.includes('{}'))"
    shown.wait(message.format("nowhere does not exist"))
    page.get_by_placeholder("another folder of runs").fill(str(folder / "others"))
    page.get_by_placeholder("another folder of runs").press("Tab")
    page.get_by_role("button", name="Refresh", exact=True).click()
    shown.wait("explorer.runs.length === 3")
    assert shown.view == view
    page.context.close()


def test_curves_of_a_training_run_can_be_zoomed_while_it_trains_and_keep_the_zoom(browser, server):
    page = new_page(browser)
    shown = run_all(page, server, "train.ipynb")
    shown.wait("explorer.runs[0].epochs >= 4", seconds=60)
    shown.frame.locator(".cc-plot").scroll_into_view_if_needed()
    first, last, low, high = shown.ranges
    shown.drag(
        (first + 0.2 * (last - first), low + 0.8 * (high - low)),
        (first + 0.7 * (last - first), low + 0.2 * (high - low)),
    )
    shown.wait("explorer.view.xrange")
    view, ranges = shown.view, shown.ranges
    epochs = shown.read("explorer.runs[0].epochs")
    for _ in range(3):  # Three refreshes.
        shown.wait(f"explorer.runs[0].epochs > {epochs}")
        epochs = shown.read("explorer.runs[0].epochs")
    assert epochs < 300, "the run has ended before"
    assert shown.view == view
    assert shown.ranges == pytest.approx(ranges)
    page.context.close()


@pytest.fixture(scope="module")
def executed(folder, environment):
    """The notebook with its outputs, and the same as a page, as nbconvert writes both."""
    convert = [sys.executable, "-m", "nbconvert", "--log-level=ERROR", "--to"]
    subprocess.run(
        [*convert, "notebook", "--execute", "--inplace", "executed.ipynb"], cwd=folder, env=environment, check=True
    )
    subprocess.run([*convert, "html", "executed.ipynb"], cwd=folder, env=environment, check=True)
    return json.loads((folder / "executed.ipynb").read_text()), folder / "executed.html"


@pytest.mark.colab
def test_saved_notebook_shows_the_curves_with_scripts_and_a_picture_without(browser, executed):
    _, path = executed
    page = new_page(browser)
    page.goto(path.as_uri())
    page.locator(".cc-plot .scatterlayer").nth(2).wait_for(state="attached")
    assert page.locator(".cc-plot .scatterlayer").count() == 3  # A run that trained, one that had ended, and both runs.
    assert page.locator("img[alt^='Curves of']:visible").count() == 0
    page.context.close()
    page = new_page(browser, java_script_enabled=False)
    page.goto(path.as_uri())
    assert page.locator("img[alt^='Curves of']:visible").count() == 3
    page.context.close()


@pytest.mark.colab
def test_each_cells_output_works_in_a_frame_of_its_own(browser, executed, tmp_path):
    notebook, _ = executed
    frames = []
    for cell in notebook["cells"]:
        parts = [
            "".join(output["data"]["text/html"]) for output in cell["outputs"] if "text/html" in output.get("data", {})
        ]
        assert sum(map(len, parts)) < 1.5e6
        frames.append(
            f'<iframe sandbox="allow-scripts" width=900 height=900 srcdoc="{html.escape("".join(parts))}"></iframe>'
        )
    (tmp_path / "frames.html").write_text("<!doctype html>" + "".join(frames), encoding="utf-8")
    page = new_page(browser)
    page.goto((tmp_path / "frames.html").as_uri())
    assert len(page.frames) == 4
    for frame in page.frames[1:]:
        shown = ExplorerPage(frame, page).wait_until_drawn()
        frame.frame_element().scroll_into_view_if_needed()
        first, last, low, high = shown.ranges
        shown.drag(
            (first + 0.3 * (last - first), low + 0.7 * (high - low)),
            (first + 0.6 * (last - first), low + 0.3 * (high - low)),
        )
        shown.wait("explorer.view.xrange")
        shown.press("Copy this view")
        assert "colabcnn.explore(" in frame.get_by_role("textbox", name="this view, to copy").input_value()
    page.context.close()


@pytest.mark.colab
def test_picture_stays_and_the_reason_is_told_without_a_network(browser, executed):
    _, path = executed
    page = browser.new_context().new_page()
    page.route("https://cdn.plot.ly/**", lambda route: route.abort())
    page.goto(path.as_uri())
    page.get_by_text("The curves cannot be zoomed here").first.wait_for()
    assert page.locator("img[alt^='Curves of']:visible").count() == 3
    page.context.close()


@pytest.mark.colab
def test_other_file_than_the_tested_one_is_not_run(browser, executed):
    _, path = executed
    page = browser.new_context().new_page()
    answer = {"body": "window.hacked = true;", "headers": {"Access-Control-Allow-Origin": "*"}}
    page.route("https://cdn.plot.ly/**", lambda route: route.fulfill(**answer))
    page.goto(path.as_uri())
    page.get_by_text("The curves cannot be zoomed here").first.wait_for()
    assert page.evaluate("window.hacked === undefined")
    page.context.close()
