"""Bytes that a run writes to Drive and leaves in its trash: python benchmarks/drive_bytes.py

Runs the real delivery with a simulated clock, to the tests' file system (FUSE), which has a trash like Drive: an
11.5-hour run of 54 s an epoch, as in the article, and 700 epochs of 3 s. The checkpoints have the size of
06_final's with Adam and the best weights.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from pairs import describe

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from colabcnn.drive.delivery import Delivery
from colabcnn.store.checkpoint import Checkpoint, write_checkpoint
from conftest import Mount

VALUES = 2_974_986
ROW = "326,0.28514137864112854,0.9012200236320496,0.34125471115112305,0.9010000228881836,0.0010000000474974513,54.123\n"


def main():
    describe()
    measure("11.5 hours of 54 s an epoch", epochs=int(11.5 * 3600 / 54), seconds=54)
    measure("700 epochs of 3 s", epochs=700, seconds=3)


def measure(name, *, epochs, seconds):
    """Print the bytes that a run of so many epochs delivers; it writes a checkpoint a minute after the last one."""
    now = 0.0
    weights = [np.random.default_rng(0).random(VALUES, dtype=np.float32) for _ in range(4)]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        local, mount = folder / "local", Mount(folder)
        delivery = Delivery(local, mount.path / "run", minutes=10, info=print, clock=lambda: now)
        deliveries, saved_at = 0, 0.0
        local.mkdir()
        try:
            delivery.begin("a run")
            settle(delivery)
            for epoch in range(1, epochs + 1):
                now += seconds
                (local / "history.csv").write_text(ROW * epoch)
                (local / "curves.png").write_bytes(bytes(60_000))
                (local / "run.json").write_text(" " * 2000)
                if now - saved_at >= 60 or epoch == epochs:
                    weights[0][0], saved_at = epoch, now
                    arrays = {"model": weights[:1], "optimizer": weights[1:3], "best": weights[3:]}
                    write_checkpoint(local / "checkpoints", Checkpoint(epoch, "fit", arrays, {}))
                before = delivery.delivered
                delivery.tick()
                settle(delivery)
                deliveries += delivery.delivered != before
            before = delivery.delivered
            delivery.finish(60)
            deliveries += delivery.delivered != before
            stored = sum(path.stat().st_size for path in (mount.files / "run").rglob("*") if path.is_file())
            trash, total = mount.trashed_bytes(), mount.written_bytes()
        finally:
            mount.unmount()
    print(
        f"{name}: {deliveries} deliveries, {total / 1e9:.2f} GB uploaded, {trash / 1e9:.3f} GB in the trash, "
        f"together {(total + trash) / 1e9:.2f} GB; {stored / 1e9:.2f} GB stay"
    )


def settle(delivery):
    while delivery._process.busy:
        delivery._poll_response(1)


if __name__ == "__main__":
    main()
