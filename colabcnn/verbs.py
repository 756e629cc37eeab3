"""The verbs of the command line: each takes the parsed options and returns the exit code.

Each verb imports the slow modules that it needs.
"""

import json
import os
import shlex
import shutil
import sys
import textwrap
import time
from argparse import Namespace

from colabcnn import onednn, output
from colabcnn.errors import Error
from colabcnn.experiments.catalog import ABLATIONS, RECIPES
from colabcnn.training.request import HELP, OF_ONE_RUN

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
    for name, experiment in ABLATIONS.items():
        kernels = ", ".join(str(size) for size in experiment.kernel_sizes)
        dropout = f"dropout {experiment.dropout:g}" if experiment.dropout else "no dropout"
        augmentation = "augmented" if experiment.augmentation else "not augmented"
        if experiment.augmentation and experiment.augmentation.channel_shift_range:
            augmentation += ", channel shift"
        print(f"{name:<24}kernels {kernels}; {dropout}; {augmentation}")
        for line in textwrap.wrap(f"The article reports: {experiment.reported.in_words()}", 56):
            print(f"{'':24}{line}")
    print("\nThe network of 06_final, trained in other ways:")
    for name, recipe in RECIPES.items():
        print(f"{name:<24}{recipe.epochs} epochs, {type(recipe.optimizer).__name__}, a rate that falls to 0")
    print("\nTrain one with: python -m colabcnn train NAME --run-dir DIR")
    return DONE


def train(options: Namespace) -> int:
    """Train an experiment, or resume its run."""
    _keep_onednn(options.run_dir)
    from colabcnn.store.experiment_file import read_experiment
    from colabcnn.training.run import run

    # `allow_long`: a person at the command line sees the progress line, and can stop a long run.
    result = run(
        read_experiment(options.name),
        options.run_dir,
        allow_long=True,
        **{name: getattr(options, name) for name in HELP if hasattr(options, name)},
    )
    if not options.quiet:
        _report(result)
    return DONE if result.complete else STOPPED


def sweep(options: Namespace) -> int:
    """Train many runs, or continue them."""
    from colabcnn.sweeps.sweep import FINISHED, sweep

    given = {name: getattr(options, name) for name in HELP if name not in OF_ONE_RUN}
    where = {"root": options.root, "drive": options.drive, "jobs": options.jobs, "scheduler": options.scheduler}
    how = {"seeds": options.seeds, "retries": options.retries, "dry_run": options.dry_run}
    states = sweep(options.names, **where, **how, **given)
    return DONE if options.dry_run or set(states.values()) == {FINISHED} else STOPPED


def _keep_onednn(run_dir):
    """Give TensorFlow, before its import, the oneDNN setting of the run in a folder."""
    from colabcnn.store.run_folder import run_folder

    record = run_folder(run_dir).read_record()
    if record and record.starts:
        onednn.keep(record.starts[-1].onednn)


def _report(result):
    output.write(f"The curves: {result.run_dir / 'curves.png'}")
    if result.complete:
        output.write(f"To share it: python -m colabcnn export {shlex.quote(str(result.run_dir))} -o FILE.safetensors")
    else:
        output.write("The same command resumes this run.")


def status(options: Namespace) -> int:
    """Print the status of a run."""
    from colabcnn.store.history import best_of
    from colabcnn.store.run_folder import run_folder, status

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
    if not info["epoch"] and (history := run_folder(options.run_dir).read_history())["epoch"]:
        best_epoch, value = best_of(history)
        print(f"; no checkpoint is here. The history has {len(history['epoch'])} epochs: validation accuracy ", end="")
        print(f"{history['val_accuracy'][-1]:.4f} in the last, {value:.4f} in the best, epoch {best_epoch}")
        return DONE
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

    measured = evaluate(options.run_dir, data=options.data, progress=sys.stdout.isatty())
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


def predict(options: Namespace) -> int:
    """Classify a picture."""
    from colabcnn.inspection.predictions import predict
    from colabcnn.viewing.curves import save_figure

    prediction = predict(options.run_dir, options.picture)
    for name, probability in list(prediction.probabilities.items())[:3]:
        print(f"{name:<12}{probability:.4f}")
    if options.output:
        save_figure(prediction.figure, options.output)
        print(options.output)
    return DONE


def explore(options: Namespace) -> int:
    """Write the interactive curves of runs as one page."""
    from colabcnn.viewing.page import export_html

    print(export_html(*options.run_dirs, path=options.output))
    return DONE


def plot(options: Namespace) -> int:
    """Draw the curves of runs into a file."""
    from colabcnn.store.run_list import list_runs
    from colabcnn.viewing.curves import plot_curves, save_figure

    view = {"metric": options.metric, "epochs": options.epochs, "value_range": options.range, "line": options.line}
    figure = plot_curves(*list_runs(*options.run_dirs).values(), **view)
    save_figure(figure, options.output)
    print(options.output)
    return DONE


def summary(options: Namespace) -> int:
    """Print the article's table beside the measured results."""
    from colabcnn.store.run_list import runs_by_name
    from colabcnn.viewing.figures import save_figures
    from colabcnn.viewing.table import summarize

    form = "expected a folder of <experiment>/seed-<n>/, each a run's"
    if not os.path.isdir(options.results):
        raise Error(f"{options.results} does not exist; {form}.")
    parents = [os.path.join(options.results, *[os.pardir] * levels) for levels in (1, 2)]
    if not runs_by_name([options.results]) and (holders := [parent for parent in parents if runs_by_name([parent])]):
        raise Error(f"{options.results} is too deep; {form}. Did you mean {os.path.relpath(holders[0])}?")
    table = summarize(options.results)
    width = shutil.get_terminal_size().columns
    tables = [table, *filter(None, (table.seeds, table.measured))]
    print("\n\n".join(str(one) if options.markdown else one.in_lines(width) for one in tables))
    if options.figures:
        for path in save_figures(options.results, options.figures):
            print(path, file=sys.stderr)
    return DONE
