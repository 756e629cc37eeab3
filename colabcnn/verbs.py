"""The verbs of the command line: each takes the parsed options and returns the exit code, None for `DONE`.

Each verb imports the slow modules that it needs.
"""

import json
import os
import shlex
import shutil
import signal
import sys
import textwrap
import threading
import time
from argparse import Namespace

from colabcnn import onednn, output
from colabcnn.errors import Error
from colabcnn.experiments.catalog import ABLATIONS, RECIPES

DONE, BAD_INPUT, STOPPED = 0, 2, 3

DEMO_FOLDER = "colabcnn-demo"
DEMO_OPTIONS = {"data": "synthetic", "train_size": 1500, "val_size": 200, "epochs": 5}
# A quarter of the final network's filters, so that it takes about a minute; in a run this short the running
# statistics of BatchNorm lag behind, and validation would begin at chance.
DEMO = {"name": "demo", "filters": (16, 32, 64), "batch_size": 16, "precise_batch_norm": True}


def demo(options: Namespace) -> None:
    """Train the final network, with a quarter of its filters, on synthetic images."""
    _keep_onednn(options.run_dir)
    _import_keras()
    from dataclasses import replace

    from colabcnn.training.run import run

    start = time.monotonic()
    output.write("The final network with a quarter of its filters, on synthetic images. About a minute.")
    result = run(replace(ABLATIONS["06_final"], **DEMO), options.run_dir, **DEMO_OPTIONS)
    _report(result)
    output.write(f"This took {time.monotonic() - start:.0f} s. The same command again trains nothing.")
    output.write("Next: python -m colabcnn list")


def list_experiments(options: Namespace) -> None:
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
        print(f"{name:<24}{recipe.epochs} epochs, {type(recipe.optimizer).__name__}")
    print("\nTrain one with: python -m colabcnn train NAME --run-dir DIR")


def train(options: Namespace) -> int:
    """Train an experiment, or resume its run."""
    _keep_onednn(options.run_dir)
    _import_keras()
    from colabcnn.store.experiment_file import read_experiment
    from colabcnn.training.run import run

    # `allow_long`: a person at the command line sees the progress line, and can stop a long run.
    given = {name: value for name, value in vars(options).items() if name not in ("name", "verb")}
    result = run(read_experiment(options.name), **given, allow_long=True)
    if not options.quiet:
        _report(result, options.start_over)
    return DONE if result.complete else STOPPED


def sweep(options: Namespace) -> int:
    """Train many runs, or continue them."""
    from colabcnn.sweeps.sweep import FINISHED, sweep

    states = sweep(
        options.names, **{name: value for name, value in vars(options).items() if name not in ("names", "verb")}
    )
    return DONE if options.dry_run or set(states.values()) == {FINISHED} else STOPPED


def _keep_onednn(run_dir):
    """Give TensorFlow, before its import, the oneDNN setting of the run in a folder."""
    from colabcnn.store.files import expand
    from colabcnn.store.run_folder import RunFolder

    record = RunFolder(expand(run_dir)).read_record()
    if record and record.starts:
        onednn.keep(record.starts[-1].onednn)


def _import_keras():
    """Import Keras. Ctrl-C takes effect after it: within TensorFlow's import it may crash the process or be lost."""
    pressed = []
    is_main_thread = threading.current_thread() is threading.main_thread()
    is_ours = is_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_ours:
        signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        import keras  # noqa: F401
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed:
        raise KeyboardInterrupt


def _report(result, started_over=False):
    output.write(f"The curves: {result.run_dir / 'curves.png'}")
    if result.complete:
        output.write(f"To share it: python -m colabcnn export {shlex.quote(str(result.run_dir))} -o FILE.safetensors")
    else:
        output.write(f"The same command{' without --start-over' if started_over else ''} resumes this run.")


def status(options: Namespace) -> int | None:
    """Print the status of a run."""
    from colabcnn.store.files import expand
    from colabcnn.store.history import newest_in_words
    from colabcnn.store.run_folder import RunFolder, status

    if options.verify:
        return _verify(options)
    info = status(options.run_dir)
    if options.json:
        print(json.dumps(info))
        return None
    words = [f"{info['experiment']}, seed {info['seed']}: epoch {info['epoch']} of {info['epochs']}"]
    words[0] += ", complete" if info["complete"] else ", not complete"
    if info["best_epoch"]:
        words.append(f"best validation accuracy {info['best_val_accuracy']:.4f} in epoch {info['best_epoch']}")
    else:
        history = RunFolder(expand(options.run_dir)).read_history()
        in_history = newest_in_words(history, info["epochs"])
        words += ["no checkpoint is here", in_history and f"the history ends with {in_history}"]
    words += [f"weights {info['weights_sha256']}"] if info["weights_sha256"] else []
    print("; ".join(filter(None, words)))
    return None


def _verify(options):
    from colabcnn.store.run_folder import verify

    checkpoints, restored = verify(options.run_dir)
    if options.json:
        print(json.dumps({"checkpoints": checkpoints, "restored": restored}))
    else:
        for info in checkpoints:
            print(f"epoch {info['epoch']}: {info['name']} verifies" if info["fault"] is None else info["fault"])
        print(f"A resume continues from {restored}." if restored else "No checkpoint can be resumed.")
    # A run that was shared without its checkpoint verifies, too.
    return DONE if restored or (checkpoints and not any(info["fault"] for info in checkpoints)) else BAD_INPUT


def evaluate(options: Namespace) -> None:
    """Measure a run on the test set."""
    _import_keras()
    from colabcnn.inspection.evaluation import evaluate
    from colabcnn.store.run_folder import FLIP_AVERAGED

    measured = evaluate(options.run_dir, data=options.data, progress=sys.stdout.isatty())
    for name in ("last_epoch", "best_epoch"):
        one = measured[name]
        print(
            f"{name.replace('_', ' ')} ({one['epoch']}): accuracy {one['accuracy']:.4f} (flip averaged "
            f"{one[FLIP_AVERAGED]:.4f}), loss {one['loss']:.4f} on the {measured['test_size']} test images"
        )


def measure(options: Namespace) -> None:
    """Measure the speed of a run on this device, into a small file."""
    _import_keras()
    from colabcnn.measuring.measurement import measure, offer_measurement

    given = {name: value for name, value in vars(options).items() if name not in ("output", "verb")}
    offer_measurement(measure(options.output, **given))


def export(options: Namespace) -> None:
    """Write a run into one file."""
    from colabcnn.sharing.share import export

    export(options.run_dir, options.output, options.checkpoint)


def fetch(options: Namespace) -> None:
    """Download a shared run."""
    from colabcnn.sharing.share import fetch

    run_dir = fetch(options.source, options.sha256, options.folder)
    print(f"Look at it: python -m colabcnn plot {shlex.quote(str(run_dir))} -o FILE.png")


def predict(options: Namespace) -> None:
    """Classify a picture."""
    _import_keras()
    from colabcnn.inspection.predictions import predict
    from colabcnn.viewing.curves import save_figure

    paths = options.output, options.picture
    if options.output and all(map(os.path.exists, paths)) and os.path.samefile(*paths):
        raise Error(f"{options.output} is the picture itself, which would be lost; expected another file.")
    prediction = predict(options.run_dir, options.picture)
    for name, probability in list(prediction.probabilities.items())[:3]:
        print(f"{name:<12}{probability:.4f}")
    if options.output:
        save_figure(prediction.figure, options.output)
        print(options.output)


def explore(options: Namespace) -> None:
    """Write the interactive curves of runs as one page."""
    from colabcnn.viewing.page import export_html

    print(export_html(*options.run_dirs, path=options.output))


def plot(options: Namespace) -> None:
    """Draw the curves of runs into a file."""
    from colabcnn.store.run_list import list_runs
    from colabcnn.viewing.curves import plot_curves, save_figure

    view = {"metric": options.metric, "epochs": options.epochs, "value_range": options.range, "line": options.line}
    figure = plot_curves(*list_runs(*options.run_dirs).values(), **view)
    save_figure(figure, options.output)
    print(options.output)


def summary(options: Namespace) -> None:
    """Print the article's table beside the measured results."""
    from colabcnn.store.files import check_folder
    from colabcnn.store.run_list import runs_by_name, runs_in
    from colabcnn.viewing.figures import save_figures
    from colabcnn.viewing.table import summarize

    form = "a folder of <experiment>/seed-<n>/, each a run's"
    check_folder(options.results, form)
    parents = [os.path.realpath(os.path.join(options.results, *[os.pardir] * levels)) for levels in (1, 2)]
    if not runs_by_name([options.results]) and (found := runs_in(options.results)):
        holders = [parent for parent in parents if runs_by_name([parent])]
        advice = f"Did you mean {os.path.relpath(holders[0])}?" if holders else f"There is a run in {found[0]}."
        raise Error(f"{options.results} has no folder <experiment>/seed-<n>/ with a run in it. {advice}")
    table = summarize(options.results)
    width = shutil.get_terminal_size().columns
    tables = [table, *filter(None, (table.seeds, table.measured))]
    print("\n\n".join(str(one) if options.markdown else one.in_lines(width) for one in tables))
    if options.figures:
        for path in save_figures(options.results, options.figures):
            print(path, file=sys.stderr)
