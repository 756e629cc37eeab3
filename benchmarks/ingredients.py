"""What each ingredient of 08_in_minutes gives: python benchmarks/ingredients.py DATA FOLDER [NAME ...]

Trains the recipe, and the recipe with one ingredient left out at a time (and four at once), by `run` itself, on all
images, each in FOLDER/NAME/seed-<n>, and measures each once on the test set. Stopped and given again, it goes on;
`python -m colabcnn summary FOLDER` prints the table. Each takes as long as the recipe.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from colabcnn import RECIPES, Error, evaluate, run  # noqa: E402

RECIPE = RECIPES["08_in_minutes"]
WITHOUT = {
    # All by Adam, at the best of the rates that were tried first for 07: the one of the rest is too high for kernels.
    "muon": {
        "optimizer": "adam",
        "learning_rate": 0.002,
        "adam_learning_rate": None,
        "momentum": 0.95,
        "newton_schulz_steps": 5,
    },
    # The mean of the falling rate, so that the kernels turn as much in all.
    "falling_rate": {
        "schedule": "constant",
        "warmup": 0.0,
        "learning_rate": RECIPE.learning_rate / 2,
        "adam_learning_rate": RECIPE.adam_learning_rate / 2,
    },
    "dirac": {"initializer": "glorot_uniform"},
    "label_smoothing": {"label_smoothing": 0.0},
    "alternating_flip": {"augmentation": replace(RECIPE.augmentation, alternating_flip=False)},
    "shifts": {"augmentation": replace(RECIPE.augmentation, width_shift_range=0.0, height_shift_range=0.0)},
    "mirrored_border": {"augmentation": replace(RECIPE.augmentation, fill_mode="nearest")},
    "quick_statistics": {"batch_norm_momentum": 0.99},
    # Dirac, alternating flip, mirrored border and quick statistics: alone, none of them gave seed 0 anything.
    "four": {
        "initializer": "glorot_uniform",
        "augmentation": replace(RECIPE.augmentation, alternating_flip=False, fill_mode="nearest"),
        "batch_norm_momentum": 0.99,
    },
}
EXPERIMENTS = {RECIPE.name: RECIPE}
EXPERIMENTS |= {f"08_without_{name}": replace(RECIPE, name=f"08_without_{name}", **o) for name, o in WITHOUT.items()}


def main():
    options = parse()
    for name in options.names or EXPERIMENTS:
        for seed in range(options.seeds):
            folder = options.folder / name / f"seed-{seed}"
            try:
                run(EXPERIMENTS[name], folder, data=options.data, seed=seed, allow_long=True)
                evaluate(folder, data=options.data)
            except Error as error:
                sys.exit(f"error: {error}")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
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
