"""The accuracy that 16 bits cost: python benchmarks/precision.py DATA mixed_bfloat16

Trains 06_final in float32 and in the given precisions, with the same seeds and epochs, by `run`, validates on images
held out of the training set, and compares the means of the last epochs. Set KERAS_BACKEND=jax for float16 on a CPU,
where it is very slow under TensorFlow.
"""

import argparse
import math
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def main():
    options = parse()
    from colabcnn import ABLATIONS
    from colabcnn.network import devices
    from colabcnn.training.run import run

    experiment = replace(ABLATIONS["06_final"], name="precision", filters=tuple(options.filters))
    print(
        f"06_final with {tuple(options.filters)} filters, {options.images} images, {options.epochs} epochs, validated "
        f"on {options.holdout} held out of the training set; seeds 0 to {options.seeds - 1}; {devices.device_name()}; "
        f"{', '.join(f'{name} {version}' for name, version in devices.versions().items())}\n"
    )
    print("| precision | validation accuracy of each seed | mean | against float32 | in standard errors |")
    print("| --- | --- | --- | --- | --- |")
    reference = None
    for precision in ("float32", *options.precisions):
        accuracies = []
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                result = run(
                    experiment,
                    folder,
                    data=options.data,
                    train_size=options.images,
                    holdout=options.holdout,
                    epochs=options.epochs,
                    precision=precision,
                    seed=seed,
                    allow_long=True,
                    quiet=True,
                )
            accuracies.append(result.history["val_accuracy"][-1])
        reference = reference or accuracies
        print(row(precision, accuracies, reference), flush=True)


def parse():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", help="the folder of CIFAR-10")
    parser.add_argument("precisions", nargs="+", help="what to compare with float32")
    parser.add_argument("--images", type=int, default=10_000, help="(default: %(default)s)")
    parser.add_argument("--holdout", type=int, default=2500, help="(default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=6, help="(default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--filters", type=int, nargs="+", default=[64, 128, 256], help="(default: the article's)")
    return parser.parse_args()


def row(precision, accuracies, reference):
    """Return the table row of a precision; the standard error is that of the difference of the two means."""
    difference = statistics.mean(accuracies) - statistics.mean(reference)
    several = min(len(accuracies), len(reference)) > 1
    error = math.sqrt(sum(statistics.variance(v) / len(v) for v in (accuracies, reference))) if several else 0.0
    in_errors = f"{abs(difference) / error:.1f}" if error else ""
    cells = [
        precision,
        " ".join(f"{accuracy:.4f}" for accuracy in accuracies),
        f"{statistics.mean(accuracies):.4f}",
        *(("", "") if accuracies is reference else (f"{difference:+.4f}", in_errors)),
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
