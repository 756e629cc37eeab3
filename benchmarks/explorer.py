"""The explorer in Chromium: zoom, highlight and the first curves, of 39 synthetic runs of 700 epochs.

    python benchmarks/explorer.py

13 experiments of three seeds each. Medians until the browser has painted. The first curves: `ours`, as the page opens,
with means; `each`, with the 39 curves; `bare`, the same curves by Plotly alone. All are opened in turn, and the ratio
is that of the last two. It needs Playwright and Chromium.
"""

import math
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import plotly.graph_objects
from playwright.sync_api import sync_playwright

from colabcnn import export_html
from colabcnn.store.history import COLUMNS, empty_history, read_history, write_history

EXPERIMENTS, SEEDS, EPOCHS, OPENED = 13, 3, 700, 5
ACTIONS = """async () => {
  const explorer = document.querySelector(".colabcnn").explorer, times = { zoom: [], highlight: [] };
  const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const time = async (name, act) => {
    await painted();
    const start = performance.now();
    act();
    await painted();
    times[name].push(performance.now() - start);
  };
  for (let index = 0; index < 15; index++) {
    await time("zoom", () => explorer.change({ xrange: [50 + 20 * index, 400 + 15 * index], yrange: [0.5, 0.9] }));
    await time("highlight", () => explorer.highlight(explorer.runs[(3 * index) % explorer.runs.length]));
    explorer.highlight(null);
  }
  return times;
}"""


def write_runs(folder):
    """Write histories whose values rise to a plateau with noise."""
    rng = random.Random(0)
    for number in range(EXPERIMENTS * SEEDS):
        history = empty_history()
        for epoch in range(1, EPOCHS + 1):
            value = (0.8 + number / 500) * math.sqrt(1 - math.exp(-epoch / 30)) + rng.gauss(0, 0.004)
            for column in COLUMNS:
                history[column].append(epoch if column == "epoch" else value)
        run = folder / f"experiment-{number // SEEDS:02}" / f"seed-{number % SEEDS}"
        run.mkdir(parents=True)
        write_history(run / "history.csv", history)


def seconds_until(page, path, selector):
    """Open a page and return the seconds until an element is there."""
    began = time.perf_counter()
    page.goto(path.as_uri())
    page.locator(selector).first.wait_for(state="attached")
    return time.perf_counter() - began


def main():
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        folder = Path(folder)
        write_runs(folder / "runs")
        ours = export_html(folder / "runs", path=folder / "ours.html")
        export_html(folder / "runs", path=folder / "each.html", view="seeds=each&curves=validation")
        histories = [read_history(path) for path in sorted((folder / "runs").rglob("history.csv"))]
        lines = [plotly.graph_objects.Scatter(x=one["epoch"], y=one["val_accuracy"]) for one in histories]
        plotly.graph_objects.Figure(lines).write_html(folder / "bare.html")
        chromium = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        print(f"page {ours.stat().st_size / 1e6:.2f} MB, {len(histories)} runs of {EPOCHS} epochs")
        first = {"ours": [], "each": [], "bare": []}
        for _ in range(OPENED):
            for name, times in first.items():
                times.append(seconds_until(page, folder / f"{name}.html", ".scatterlayer .js-line"))
        print("first curves:", {name: [round(value, 2) for value in times] for name, times in first.items()})
        print(f"ratio of the medians {statistics.median(first['each']) / statistics.median(first['bare']):.2f}")
        seconds_until(page, ours, ".scatterlayer .js-line")
        for seeds, words in (("mean", f"{EXPERIMENTS} means and deviations"), ("each", f"all {len(histories)} runs")):
            page.evaluate(f"document.querySelector('.colabcnn').explorer.change({{ seeds: '{seeds}' }})")
            times = page.evaluate(ACTIONS)
            print(words, {name: f"{statistics.median(values):.0f} ms" for name, values in times.items()})


if __name__ == "__main__":
    main()
