"""The verbs of the command line: each takes the parsed options and returns the exit code.

Each verb imports the slow modules that it needs.
"""

import json
import os
import shlex
import sys
import time
from argparse import Namespace

from colabcnn import onednn, output
from colabcnn.errors import Error
from colabcnn.experiments.catalog import ABLATIONS, RECIPES
from colabcnn.training.request import HELP

DONE, BAD_INPUT, STOPPED = 0, 2, 3

DEMO_FOLDER = "colabcnn-demo"
DEMO_TRAIN_SIZE, DEMO_VAL_SIZE, DEMO_EPOCHS = 1500, 200, 5
# A quarter of the final network's filters, so that it takes less than a minute; in a run this short the running
# statistics of BatchNorm lag behind, and validation would begin at chance.
DEMO = {"name": "demo", "filters": (16, 32, 64), "batch_size": 16, "precise_batch_norm": True}


def demo(options: Namespace) -> int:
    """Train the final network, with a quarter of its filters, on synthetic images."""
    _keep_onednn(options.run_dir)
    from dataclasses import replace

    from colabcnn.training.run import run

    start = time.monotonic()
    output.write("The final network with a quarter of its filters, on synthetic images. About a minute.")
    result = run(
        replace(ABLATIONS["06_final"], **DEMO),
        options.run_dir,
        data="synthetic",
        train_size=DEMO_TRAIN_SIZE,
        val_size=DEMO_VAL_SIZE,
        epochs=DEMO_EPOCHS,
    )
    _report(result)
    output.write(f"This took {time.monotonic() - start:.0f} s. The same command again trains nothing.")
    output.write("Next: python -m colabcnn list")
    return DONE


def list_experiments(options: Namespace) -> int:
    """Print the experiments and the article's results."""
    print(f"{'name':<24}{'kernels':<11}{'dropout':<9}{'augmentation':<15}the article reports")
    for name, experiment in ABLATIONS.items():
        kernels = ", ".join(str(size) for size in experiment.kernel_sizes)
        augmentation = experiment.augmentation
        kind = "none" if augmentation is None else "with channel" if augmentation.channel_shift_range else "yes"
        print(f"{name:<24}{kernels:<11}{experiment.dropout:<9g}{kind:<15}{experiment.reported.in_words()}")
    print("\nThe network of 06_final, trained in other ways:")
    for name, recipe in RECIPES.items():
        dropout = f"dropout {recipe.dropout:g}" if recipe.dropout else "no dropout"
        optimizer = type(recipe.optimizer).__name__
        print(f"{name:<24}{recipe.epochs} epochs, {optimizer}, a learning rate that falls to 0, {dropout}")
    print("\nTrain one with: python -m colabcnn train NAME --run-dir DIR")
    return DONE


def train(options: Namespace) -> int:
    """Train an experiment, or resume its run."""
    _keep_onednn(options.run_dir)
    from colabcnn.training.run import run

    # `allow_long`: a person at the command line sees the progress line, and can stop a long run.
    result = run(
        options.name,
        options.run_dir,
        allow_long=True,
        **{name: getattr(options, name) for name in HELP if hasattr(options, name)},
    )
    if not options.quiet:
        _report(result)
    return DONE if result.complete else STOPPED


def _keep_onednn(run_dir):
    """Give TensorFlow, before its import, the oneDNN setting of the run in a folder."""
    from colabcnn.store.run_folder import run_folder

    record = run_folder(run_dir).read_record()
    if record and record.starts:
        onednn.keep(record.starts[-1].onednn)


def _report(result):
    from colabcnn.store.history import best_of

    last, (best, value) = result.history["val_accuracy"][-1], best_of(result.history)
    output.write(
        f"{result.run_dir}: {result.reason}. Validation accuracy {last:.4f} in the last epoch, "
        f"{value:.4f} in the best, epoch {best}. The curves: {result.run_dir / 'curves.png'}"
    )
    if result.complete:
        output.write(f"To share it: python -m colabcnn export {shlex.quote(str(result.run_dir))} -o FILE.safetensors")
    else:
        output.write("The same command resumes this run.")


def status(options: Namespace) -> int:
    """Print the status of a run."""
    from colabcnn.store.run_folder import status

    if options.verify:
        return _verify(options)
    info = status(options.run_dir)
    if options.json:
        print(json.dumps(info))
        return DONE
    best = (
        "none yet" if info["best_epoch"] is None else f"{info['best_val_accuracy']:.4f} in epoch {info['best_epoch']}"
    )
    print(f"{info['experiment']}, seed {info['seed']}: epoch {info['epoch']} of {info['epochs']}", end="")
    print(", complete" if info["complete"] else ", not complete", end="")
    print(f"; best validation accuracy {best}", end="")
    print(f"; weights {info['weights_sha256']}" if info["weights_sha256"] else "")
    return DONE


def _verify(options):
    from colabcnn.store.run_folder import verify

    checkpoints, restored = verify(options.run_dir)
    if options.json:
        print(json.dumps({"checkpoints": checkpoints, "restored": restored}))
    else:
        for info in checkpoints:
            print(f"epoch {info['epoch']}: {info['name']} verifies" if info["fault"] is None else info["fault"])
        print(f"A resume continues from {restored}." if restored else "No checkpoint verifies: nothing can be resumed.")
    return DONE if restored else BAD_INPUT


def evaluate(options: Namespace) -> int:
    """Measure a run on the test set."""
    from colabcnn.inspection.evaluation import evaluate
    from colabcnn.store.run_folder import FLIP_AVERAGED

    measured = evaluate(options.run_dir, data=options.data, progress=True)
    for name in ("last_epoch", "best_epoch"):
        one = measured[name]
        print(
            f"{name.replace('_', ' ')} ({one['epoch']}): accuracy {one['accuracy']:.4f} (flip averaged "
            f"{one[FLIP_AVERAGED]:.4f}), loss {one['loss']:.4f} on the {measured['test_size']} test images"
        )
    return DONE


def measure(options: Namespace) -> int:
    """Measure the speed of a run on this device, into a small file."""
    from colabcnn.measuring.measurement import measure, offer_measurement

    sizes = {"train_size": options.train_size, "val_size": options.val_size}
    path = measure(options.output, data=options.data, **sizes, minutes=options.minutes, sent_by=options.sent_by)
    offer_measurement(path)
    return DONE


def export(options: Namespace) -> int:
    """Write a run into one file."""
    from colabcnn.sharing.share import export

    export(options.run_dir, options.output, options.checkpoint)
    return DONE


def fetch(options: Namespace) -> int:
    """Download a shared run."""
    from colabcnn.sharing.share import fetch

    run_dir = fetch(options.source, options.sha256, options.folder)
    print(f"Look at it: python -m colabcnn plot {shlex.quote(str(run_dir))} -o FILE.png")
    return DONE


def plot(options: Namespace) -> int:
    """Draw the curves of runs into a file."""
    from colabcnn.viewing.curves import plot_curves, save_figure

    figure = plot_curves(
        *options.run_dirs, metric=options.metric, epochs=options.epochs, value_range=options.range, line=options.line
    )
    save_figure(figure, options.output)
    print(options.output)
    return DONE


def summary(options: Namespace) -> int:
    """Print the article's table beside the measured results."""
    from colabcnn.viewing.figures import save_figures
    from colabcnn.viewing.table import summarize

    if not os.path.isdir(options.results):
        raise Error(f"{options.results} does not exist; expected a folder of <experiment>/seed-<n>/, each a run's.")
    table = summarize(options.results)
    print(table)
    if table.measured:
        print(f"\n{table.measured}")
    if options.figures:
        for path in save_figures(options.results, options.figures):
            print(path, file=sys.stderr)
    return DONE
