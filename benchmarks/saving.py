"""How long a checkpoint of 06_final keeps training waiting: python benchmarks/saving.py [--saves N]

The network with Adam and the best weights, 48 MB, is saved by the callback that `train` uses, each time after the
last save is on disk. Prints for every save how long training waits, and when the file is on disk.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from colabcnn import ABLATIONS
from colabcnn.data.split import split_data
from colabcnn.data.synthetic import load_synthetic
from colabcnn.network import devices
from colabcnn.training.executable_model import compiled_model
from pairs import describe
from recording import quiet_recording


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--saves", type=int, default=15)
    options = parser.parse_args()
    describe()
    experiment = ABLATIONS["06_final"]
    split, execution = split_data(*load_synthetic(128, 10)), devices.plain_execution()
    model = compiled_model(experiment, split, seed=0, precision="float32", execution=execution)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        recorder, _ = quiet_recording(Path(folder), experiment, "float32", (128, 10), checkpoint_minutes=0)
        recorder.set_model(model)
        recorder.set_params({"epochs": options.saves + 1})
        waits = []
        for epoch in range(options.saves):
            recorder.on_epoch_begin(epoch)
            logs = {"loss": 1.0, "accuracy": 0.5, "val_loss": 1.0, "val_accuracy": 0.5 + epoch / 1000}
            began = time.perf_counter()
            recorder.on_epoch_end(epoch, logs)
            waits.append(1000 * (time.perf_counter() - began))
            recorder.writer.wait()
            on_disk = 1000 * (time.perf_counter() - began)
            print(f"  save {epoch + 1}: training waits {waits[-1]:.0f} ms, on disk after {on_disk:.0f} ms")
        size = max(path.stat().st_size for path in Path(folder, "checkpoints").iterdir())
    print(f"  {size / 1e6:.1f} MB; median {statistics.median(waits):.0f} ms, maximum {np.max(waits):.0f} ms")


if __name__ == "__main__":
    main()
