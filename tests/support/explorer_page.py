"""The explorer in a browser: a person looks, chooses, types, drags, points and presses keys."""

import json
import math
import random
import shutil
import time

import pytest

from colabcnn.store.history import empty_history, write_history
from colabcnn.store.run_folder import RunFolder

EXPLORER = "document.querySelector('.colabcnn').explorer"
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
# Playwright answers no requests of a frame in a process of its own before it has found that process.
CHROMIUM += ["--disable-features=IsolateSandboxedIframes"]


def start_chromium(playwright):
    """Return Playwright's browser, or skip the test."""
    if not shutil.which("chromium"):
        pytest.skip("Chromium is not installed: apt-get install chromium", allow_module_level=True)
    return playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)


def saturating(top, seed, epochs=700, best=None):
    """Return a history that looks like one of a training; the epoch `best` is 0.05 above its neighbours."""
    rng = random.Random(seed)
    history = empty_history()
    for epoch in range(1, epochs + 1):
        rise = top * math.sqrt(1 - math.exp(-epoch / 30))
        row = {
            "epoch": epoch,
            "loss": 2 * math.exp(-epoch / 30) + rng.uniform(0.05, 0.15),
            "accuracy": min(1.0, rise + 0.06),
            "val_loss": 2 * math.exp(-epoch / 30) + rng.uniform(0.3, 0.5),
            "val_accuracy": rise + rng.gauss(0, 0.004) + 0.05 * (epoch == best),
            "learning_rate": 0.001 * (1 - epoch / (epochs + 1)),
            "seconds": 20.0 + rng.random(),
        }
        for column, value in row.items():
            history[column].append(value)
    return history


def write_run(folder, history, record=None):
    """Write the files of a run that viewers read."""
    folder.mkdir(parents=True, exist_ok=True)
    write_history(folder / "history.csv", history)
    if record is not None:
        RunFolder(folder).write_record(record)
    return folder


class ExplorerPage:
    """An explorer in a page or a frame.

    Args:
        frame: Playwright's `Page` or `Frame`.
        page: the `Page` around it, which has mouse and keyboard; None if it is the same.
    """

    def __init__(self, frame, page=None):
        self.frame = frame
        self.page = page or frame

    def read(self, expression):
        """Return a JavaScript expression's value; `explorer` is the explorer."""
        return self.frame.evaluate(f"(() => {{ const explorer = {EXPLORER}; return {expression}; }})()")

    def wait(self, condition, seconds=20):
        # Not Playwright's wait_for_function, which evaluates text in the page: the page's policy forbids it.
        deadline = time.monotonic() + seconds
        while not self.read(condition):
            assert time.monotonic() < deadline, condition
            self.page.wait_for_timeout(20)

    def wait_until_drawn(self):
        self.frame.locator(".cc-plot .scatterlayer").wait_for(state="attached", timeout=180_000)
        return self

    def reset(self):
        """Show what was shown first."""
        self.read(
            "(explorer.back = [], explorer.expanded.clear(), explorer.search.value = '', explorer.sort.value = 'given',"
            " explorer.view = explorer.decode(''), explorer.draw(), null)"
        )

    @property
    def view(self):
        return self.read("({ ...explorer.view, hide: [...explorer.view.hide].sort() })")

    @property
    def ranges(self):
        """The ends of both axes, as drawn."""
        return self.read("[...explorer.plot._fullLayout.xaxis.range, ...explorer.plot._fullLayout.yaxis.range]")

    @property
    def status(self):
        return self.frame.locator(".cc-status").text_content()

    @property
    def is_refused(self):
        return self.read("explorer.status.classList.contains('cc-wrong')")

    @property
    def rows(self):
        """Names and figures in the list of runs."""
        return [
            tuple(row.locator(part).text_content() for part in (".cc-name", ".cc-values"))
            for row in self.frame.locator(".cc-rows li:has(.cc-name)").all()
        ]

    def traces(self, **wanted):
        """Return the drawn curves with these values, as dicts of "name", "x", "y", "mode" and "fill"."""
        made = self.read(
            "explorer.plot.calcdata.map(([{ trace }]) => ({ name: trace.name, mode: trace.mode, fill: trace.fill,"
            " x: [...trace.x], y: [...trace.y], legend: trace.showlegend, dash: trace.line?.dash }))"
        )
        return [trace for trace in made if all(trace[name] == value for name, value in wanted.items())]

    def at(self, x, y):
        """Return the position on the screen of a point of the curves, in pixels."""
        inside = self.read(
            "(() => { const box = explorer.plot.getBoundingClientRect(), { xaxis, yaxis } = explorer.plot._fullLayout;"
            f" return [box.x + xaxis._offset + xaxis.d2p({x}), box.y + yaxis._offset + yaxis.d2p({y})]; }})()"
        )
        if self.frame is self.page:
            return inside
        outside = self.frame.frame_element().bounding_box()
        return [inside[0] + outside["x"], inside[1] + outside["y"]]

    def drag(self, start, end):
        self.page.mouse.move(*self.at(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.at(*end), steps=6)
        self.page.mouse.up()

    def hover(self, x, y):
        """Point at a value; return the lines of the text that appears."""
        self.page.mouse.move(5, 5)
        self.page.mouse.move(*self.at(x, y), steps=3)
        self.page.wait_for_timeout(200)  # Plotly shows what lies on the way, too, every 50 ms.
        text = self.frame.locator(".hoverlayer .hovertext .nums")
        text.wait_for()
        return text.locator("tspan.line").all_text_contents()

    def press(self, name):
        self.frame.get_by_role("button", name=name, exact=True).click()

    def choose(self, name, option):
        self.frame.get_by_role("combobox", name=name, exact=True).select_option(label=option)

    def type(self, name, text):
        field = self.frame.get_by_role("textbox", name=name, exact=True)
        field.fill(text)
        field.press("Enter")

    def switch(self, name):
        """Click the box of a row of the list, whose name begins so."""
        self.frame.locator(f".cc-rows input[aria-label^={json.dumps(name + ':')}]").click()
