"""The effect of each ingredient of 08_in_minutes: python benchmarks/ingredients.py DATA FOLDER [NAME ...]

Trains the recipe, and the recipe with one ingredient left out at a time (and four at once), by `run`, on all
images, each in FOLDER/NAME/seed-<n>, and measures each once on the test set. The same command resumes a stopped run;
`python -m colabcnn summary --markdown FOLDER` prints the table. Each takes as long as the recipe.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import colabcnn  # noqa: E402
from colabcnn import RECIPES, Error  # noqa: E402
from colabcnn.experiments.ingredients import Adam, Constant, Muon  # noqa: E402

RECIPE = RECIPES["08_in_minutes"]
MUON, AUGMENTATION = RECIPE.optimizer, RECIPE.augmentation
assert isinstance(MUON, Muon) and AUGMENTATION is not None
WITHOUT = {
    # Adam trains all weights, at the best rate of the first trials for 07; its own rate is too high for kernels.
    "muon": {"optimizer": Adam(learning_rate=0.002)},
    # The mean of the falling rate, so that the kernels change as much in total.
    "falling_rate": {
        "schedule": Constant(),
        "optimizer": replace(
            MUON, learning_rate=MUON.learning_rate / 2, adam_learning_rate=MUON.adam_learning_rate / 2
        ),
    },
    "dirac": {"initializer": "glorot_uniform"},
    "label_smoothing": {"label_smoothing": 0.0},
    "alternating_flip": {"augmentation": replace(AUGMENTATION, alternating_flip=False)},
    "shifts": {"augmentation": replace(AUGMENTATION, width_shift_range=0.0, height_shift_range=0.0)},
    "mirrored_border": {"augmentation": replace(AUGMENTATION, fill_mode="nearest")},
    "quick_statistics": {"batch_norm_momentum": 0.99},
    # Dirac, alternating flip, mirrored border and quick statistics: alone, none of them improved seed 0.
    "four": {
        "initializer": "glorot_uniform",
        "augmentation": replace(AUGMENTATION, alternating_flip=False, fill_mode="nearest"),
        "batch_norm_momentum": 0.99,
    },
}
# The replacement of each ingredient, for the table on the results page.
IN_WORDS = {
    "muon": "all by Adam, at 0.002",
    "falling_rate": "a constant rate, half of the highest",
    "dirac": "Glorot's uniform kernels",
    "label_smoothing": "labels as they are",
    "alternating_flip": "random flips",
    "shifts": "no shifts",
    "mirrored_border": "the border repeated",
    "quick_statistics": "BatchNorm's momentum 0.99, not 0.97",
    "four": "Glorot, random flips, border repeated, momentum 0.99",
}
EXPERIMENTS = {RECIPE.name: RECIPE}
EXPERIMENTS |= {f"08_without_{name}": replace(RECIPE, name=f"08_without_{name}", **o) for name, o in WITHOUT.items()}


def main():
    options = parse()
    for name in options.names or EXPERIMENTS:
        for seed in range(options.seeds):
            folder = options.folder / name / f"seed-{seed}"
            try:
                colabcnn.run(EXPERIMENTS[name], folder, data=options.data, seed=seed, allow_long=True)
                colabcnn.evaluate(folder, data=options.data)
            except Error as error:
                sys.exit(f"error: {error}")


def parse():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", help="the folder of CIFAR-10")
    parser.add_argument("folder", type=Path, help="where the runs are kept")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(EXPERIMENTS)} (default: all)")
    parser.add_argument("--seeds", type=int, default=1, help="(default: %(default)s)")
    options = parser.parse_args()
    if unknown := set(options.names) - set(EXPERIMENTS):
        parser.error(f"there is no {', '.join(unknown)}; expected some of {', '.join(EXPERIMENTS)}")
    if options.seeds < 1:
        parser.error(f"--seeds is {options.seeds}; expected a whole number from 1")
    return options


if __name__ == "__main__":
    main()
