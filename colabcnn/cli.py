"""The command line: what tests and people share with the notebooks' `run`."""

import argparse
import json
import math
import os
import sys
import time

from colabcnn.errors import Error
from colabcnn.experiments import ABLATIONS

DONE, BAD_INPUT, STOPPED = 0, 2, 3

DEMO_FOLDER = "colabcnn-demo"
DEMO_TRAIN_SIZE, DEMO_VAL_SIZE, DEMO_EPOCHS, DEMO_BATCH_SIZE = 1500, 200, 5, 16

DATA_HELP = (
    "cifar10: $CIFAR10_DIR, else Keras's cache, else a download; synthetic: images drawn by code, needs nothing; "
    "or the folder of the official cifar-10-batches-py files"
)


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        """Say what is wrong in one line; the usage is what --help is for."""
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(BAD_INPUT)


def main(arguments=None):
    """Run a verb and return its exit code: 0 done, 2 bad arguments or input, 3 stopped in order before the end."""
    options = _parser().parse_args(arguments)
    # TensorFlow's notices about the processor, and on a machine without a GPU an error about CUDA, would stand before
    # every answer; what goes wrong for the user comes as an exception.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        return options.verb(options)
    except Error as error:
        print(f"colabcnn: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return STOPPED
    except BrokenPipeError:
        # Whoever read our output has gone, as `| head` does; keep Python from flushing into the void at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        print(f"colabcnn: {error.filename or 'the disk'}: {error.strerror or error}", file=sys.stderr)
        return BAD_INPUT


def _demo(options):
    from dataclasses import replace

    from colabcnn.training import run

    began = time.monotonic()
    experiment = replace(ABLATIONS["06_final"], name="demo", batch_size=DEMO_BATCH_SIZE)
    result = run(
        experiment,
        options.run_dir,
        data="synthetic",
        train_size=DEMO_TRAIN_SIZE,
        val_size=DEMO_VAL_SIZE,
        epochs=DEMO_EPOCHS,
    )
    _report(result)
    print(f"This took {time.monotonic() - began:.0f} s. The same command again trains nothing.")
    print("Next: python -m colabcnn list")
    return DONE


def _list(options):
    print(f"{'name':<24}{'kernels':<11}{'dropout':<9}{'augmentation':<15}the article reports")
    for name, experiment in ABLATIONS.items():
        kernels = ", ".join(str(size) for size in experiment.kernel_sizes)
        augmentation = experiment.augmentation
        kind = "none" if augmentation is None else "with channel" if augmentation.channel_shift_range else "yes"
        print(f"{name:<24}{kernels:<11}{experiment.dropout:<9g}{kind:<15}{experiment.reported.in_words()}")
    print("\nTrain one with: python -m colabcnn train NAME --run-dir DIR")
    return DONE


def _train(options):
    from colabcnn.training import run

    result = run(
        options.name,
        options.run_dir,
        data=options.data,
        epochs=options.epochs,
        train_size=options.train_size,
        val_size=options.val_size,
        seed=options.seed,
        hours=options.hours,
        precision=options.precision,
        holdout=options.holdout,
        checkpoint_minutes=options.checkpoint_minutes,
        drive_folder=options.drive_folder,
        drive_minutes=options.drive_minutes,
        start_over=options.start_over,
        allow_long=True,  # Whoever types a command sees its progress line, and can stop it.
        quiet=options.quiet,
    )
    if not options.quiet:
        _report(result)
    return DONE if result.complete else STOPPED


def _report(result):
    from colabcnn.history import best_epoch

    accuracies, best = result.history["val_accuracy"], best_epoch(result.history)
    print(
        f"{result.run_dir}: {result.reason}. Validation accuracy {accuracies[-1]:.4f} in the last epoch, "
        f"{accuracies[best - 1]:.4f} in the best, {best}. The curves: {result.run_dir / 'curves.png'}"
    )
    if not result.complete:
        print("The same command goes on with this run.")


def _status(options):
    from colabcnn.run_folder import status

    if options.verify:
        return _verify(options)
    told = status(options.run_dir)
    if options.json:
        print(json.dumps(told))
        return DONE
    best = (
        "none yet" if told["best_epoch"] is None else f"{told['best_val_accuracy']:.4f} in epoch {told['best_epoch']}"
    )
    print(f"{told['experiment']}, seed {told['seed']}: epoch {told['epoch']} of {told['epochs']}", end="")
    print(", complete" if told["complete"] else ", not complete", end="")
    print(f"; best validation accuracy {best}; weights {told['weights_sha256']}")
    return DONE


def _verify(options):
    from colabcnn.run_folder import verify

    checkpoints, restored = verify(options.run_dir)
    if options.json:
        print(json.dumps({"checkpoints": checkpoints, "restored": restored}))
    else:
        for told in checkpoints:
            print(f"epoch {told['epoch']}: {told['name']} verifies" if told["fault"] is None else told["fault"])
        print(f"A resume goes on from {restored}." if restored else "No checkpoint verifies: nothing can be resumed.")
    return DONE if restored else BAD_INPUT


def _evaluate(options):
    from colabcnn.evaluation import evaluate

    measured = evaluate(options.run_dir, data=options.data, progress=True)
    for name in ("last_epoch", "best_epoch"):
        one = measured[name]
        print(
            f"{name.replace('_', ' ')} ({one['epoch']}): accuracy {one['accuracy']:.4f}, loss {one['loss']:.4f} "
            f"on the {measured['test_size']} test images"
        )
    return DONE


def _home(options):
    from colabcnn.home import stamp

    home, tag, changed = stamp(options.url)
    for path in changed:
        print(path)
    print(f"Home is {home}; the notebooks install {tag} from there: push that tag.")
    return DONE


def _plot(options):
    from colabcnn.plots import plot_curves, save_figure

    figure = plot_curves(
        *options.run_dirs, metric=options.metric, epochs=options.epochs, value_range=options.range, line=options.line
    )
    save_figure(figure, options.output)
    print(options.output)
    return DONE


def _summary(options):
    from colabcnn.summary import save_figures, summarize

    if not os.path.isdir(options.results):
        raise Error(f"{options.results} is not there; expected a folder of <experiment>/seed-<n>/, each a run's.")
    print(summarize(options.results))
    if options.figures:
        for path in save_figures(options.results, options.figures):
            print(path, file=sys.stderr)
    return DONE


def _span(text):
    """Parse `A:B`, either end left out for the end of the data."""
    low, colon, high = text.partition(":")
    try:
        if not colon:
            raise ValueError
        span = tuple(float(end) if end else None for end in (low, high))
        if not all(end is None or math.isfinite(end) for end in span):
            raise ValueError
        return span
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a range; expected LOW:HIGH, such as 250:400") from None


def _parser():
    parser = _Parser(prog="python -m colabcnn", description=sys.modules["colabcnn"].__doc__.splitlines()[0])
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    demo = _verb(verbs, "demo", _demo, f"train on images drawn by code, offline, into ./{DEMO_FOLDER}; a minute or two")
    demo.add_argument("--run-dir", default=DEMO_FOLDER, metavar="DIR", help="the run's folder (default: %(default)s)")

    _verb(verbs, "list", _list, "the experiments, and what the article reports for each")

    train = _verb(verbs, "train", _train, "train an experiment, or go on with its run: the same command either way")
    train.add_argument("name", metavar="NAME", help="an experiment's name, as `list` shows them")
    train.add_argument("--run-dir", required=True, metavar="DIR", help="the run's folder; made if missing")
    train.add_argument("--data", default="cifar10", metavar="DATA", help=f"{DATA_HELP} (default: %(default)s)")
    train.add_argument("--epochs", type=int, metavar="N", help="in all (default: the run's own, at first 700)")
    train.add_argument("--train-size", type=int, metavar="N", help="the first N training images (default: all)")
    train.add_argument("--val-size", type=int, metavar="N", help="the first N validation images (default: all)")
    train.add_argument("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")
    train.add_argument(
        "--hours",
        type=float,
        metavar="H",
        help="end in order before so many hours from now (in Colab: from its start) are over, after one epoch at least",
    )
    train.add_argument(
        "--precision",
        default="auto",
        metavar="P",
        help="float32, mixed_float16, mixed_bfloat16, or auto: what suits the device (default: %(default)s)",
    )
    train.add_argument(
        "--holdout",
        type=int,
        default=0,
        metavar="N",
        help="validate on N training images, leave the test set for `evaluate` (default: the test set, as the article)",
    )
    train.add_argument(
        "--checkpoint-minutes",
        type=float,
        default=1,
        metavar="M",
        help="at least M minutes between two checkpoints, 0: at every epoch (default: %(default)s)",
    )
    train.add_argument(
        "--drive-folder",
        metavar="DIR",
        help="deliver the run's files here as it goes, and go on from here on another machine (default: none)",
    )
    train.add_argument(
        "--drive-minutes",
        type=float,
        default=10,
        metavar="M",
        help="so many minutes between two deliveries (default: %(default)s); the end always delivers",
    )
    train.add_argument(
        "--start-over", action="store_true", help="set the run that is there aside, into set-aside-<n>, and begin anew"
    )
    train.add_argument("--quiet", action="store_true", help="print nothing but errors")

    status = _verb(verbs, "status", _status, "how a run stands, by its newest checkpoint")
    status.add_argument("run_dir", metavar="DIR", help="the run's folder")
    status.add_argument("--json", action="store_true", help="one line of JSON")
    status.add_argument(
        "--verify",
        action="store_true",
        help="check every checkpoint against its digest, and say which one a resume goes on from",
    )

    evaluate = _verb(verbs, "evaluate", _evaluate, "measure a run on the test set, once; writes test.json")
    evaluate.add_argument("run_dir", metavar="DIR", help="the run's folder")
    evaluate.add_argument(
        "--data",
        metavar="DATA",
        help="the folder of CIFAR-10, if the run was trained on it (default: found as `train` finds it)",
    )

    summary = _verb(verbs, "summary", _summary, "the article's table beside what was measured, as Markdown")
    summary.add_argument("results", metavar="DIR", help="a folder of <experiment>/seed-<n>/, each a run's folder")
    summary.add_argument("--figures", metavar="FOLDER", help="draw the pictures that go with it into this folder")

    home = _verb(verbs, "home", _home, "write this copy's address and version into its notebooks, badges and README")
    home.add_argument(
        "url", nargs="?", metavar="URL", help="such as https://github.com/you/colabcnn (default: as it is)"
    )

    plot = _verb(verbs, "plot", _plot, "draw the curves of one run or several")
    plot.add_argument("run_dirs", nargs="+", metavar="DIR", help="folders of runs")
    plot.add_argument("-o", "--output", required=True, metavar="FILE.png", help="png, svg or pdf, by its ending")
    plot.add_argument("--metric", metavar="M", help="accuracy or loss (default: both, side by side)")
    plot.add_argument("--epochs", type=_span, metavar="A:B", help="zoom to these epochs")
    plot.add_argument("--range", type=_span, metavar="LO:HI", help="zoom to these values; needs --metric")
    plot.add_argument("--line", type=float, metavar="Y", help="a guide line, such as 0.9")
    return parser


def _verb(verbs, name, function, text):
    verb = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    verb.set_defaults(verb=function)
    return verb
