"""The time of one redraw of the explorer, with six runs of 700 epochs, as in the article.

    python benchmarks/explorer.py

The histories are synthetic; only their length and number matter here.
"""

import random
import statistics
import tempfile
import time
from pathlib import Path

from colabcnn import ABLATIONS, explore
from colabcnn.store.history import COLUMNS, empty_history, write_history

EPOCHS, REDRAWS = 700, 21


def write_runs(folder):
    """Write a history for each experiment of the article; its values rise to a plateau with noise."""
    rng = random.Random(0)
    for name in ABLATIONS:
        history = empty_history()
        for epoch in range(1, EPOCHS + 1):
            value = 0.9 - 0.8 / epoch + rng.gauss(0, 0.01)
            for column in COLUMNS:
                history[column].append(epoch if column == "epoch" else value)
        (folder / name / "seed-0").mkdir(parents=True)
        write_history(folder / name / "seed-0" / "history.csv", history)


def main():
    with tempfile.TemporaryDirectory() as folder:
        write_runs(Path(folder))
        explorer = explore(folder)
        milliseconds = []
        for redraw in range(REDRAWS):
            began = time.perf_counter()
            explorer.controls.epochs.value = (2 + redraw, EPOCHS - redraw)
            milliseconds.append((time.perf_counter() - began) * 1000)
    print(" ".join(f"{value:.0f}" for value in milliseconds))
    print(f"a redraw of {len(ABLATIONS)} runs of {EPOCHS} epochs: {statistics.median(milliseconds):.0f} ms, median")


if __name__ == "__main__":
    main()
