"""Put a run's best weights, as float16, beside its shipped history: python tools/ship_weights.py RUN_DIR DATA

RUN_DIR is the folder of a run whose history lies in results/<name>/seed-<n>. DATA is the folder of CIFAR-10: the number
of its test images that the shipped weights classify correctly is written into weights.json, beside that of the float32
weights.
"""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from colabcnn.data.split import load_split  # noqa: E402
from colabcnn.errors import Error  # noqa: E402
from colabcnn.inspection.predictions import class_probabilities  # noqa: E402
from colabcnn.inspection.weights import load_model  # noqa: E402
from colabcnn.store.checkpoint import write_checkpoint  # noqa: E402
from colabcnn.store.files import write_atomically  # noqa: E402
from colabcnn.store.history import read_history  # noqa: E402
from colabcnn.store.run_folder import open_checkpoint  # noqa: E402


def main() -> None:
    """Write the weights of one run."""
    run_dir, data = sys.argv[1:] if len(sys.argv) == 3 else sys.exit(__doc__)
    try:
        print(json.dumps(ship(run_dir, data, ROOT / "results")))
    except Error as error:
        sys.exit(f"error: {error}")


def ship(run_dir: str | Path, data: str | Path, results: Path) -> dict[str, int]:
    """Write a run's weights into its folder in `results`.

    Returns:
        The numbers of test images that are right: "float32", "float16" and "images".

    Raises:
        Error: the shipped history is not that of the run.
    """
    _, record, checkpoint = open_checkpoint(run_dir)
    target = results / record.experiment.name / f"seed-{record.seed}"
    if read_history(target / "history.csv") != checkpoint.metadata["history"]:
        raise Error(f"{target} has another history than {run_dir}; ship the run whose history lies there.")
    half = [weight.astype(np.float16) for weight in checkpoint.arrays["best"]]
    metadata = {**checkpoint.metadata, "callbacks": []}
    shutil.rmtree(target / "checkpoints", ignore_errors=True)  # Those that were shipped before.
    write_checkpoint(
        target / "checkpoints", replace(checkpoint, kind="shared", arrays={"best": half}, metadata=metadata)
    )
    split = load_split(data)
    right = {
        precision: int((class_probabilities(load_model(folder), split.val_images).argmax(1) == split.val_labels).sum())
        for precision, folder in (("float32", run_dir), ("float16", target))
    }
    right["images"] = len(split.val_labels)
    write_atomically(target / "weights.json", json.dumps(right) + "\n")
    return right


if __name__ == "__main__":
    main()
