"""The command line; `verbs` has the function of each verb."""

import argparse
import contextlib
import gc
import io
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import get_args, get_type_hints

from colabcnn import output, verbs, version
from colabcnn.errors import Error, Interrupted
from colabcnn.training.request import HELP, OF_ONE_RUN, RunRequest
from colabcnn.verbs import BAD_INPUT, DONE, STOPPED

ADVICE = {
    "no_data": " Or: --data FOLDER.",
    "another_run": " Or: --start-over once, which moves aside the runs in --run-dir and --drive-folder.",
    "shared_without_checkpoint": " It is written by: export --checkpoint.",
}

_RUN_DIR = {"metavar": "DIR", "help": "the run's folder"}
_NAME_HELP = "an experiment's name, as `list` shows them, or a .json file with its settings"


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        """Report the error in one line; --help shows the usage."""
        output.write(f"{self.prog}: {message}; see {self.prog} --help", stream=sys.stderr)
        raise SystemExit(BAD_INPUT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb and return its exit code: 0 done, 2 bad arguments or input, 3 stopped in order before the end."""
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # A folder's name may have characters that a terminal lacks.
    output.drop_notices()
    # TensorFlow's import makes so many objects that to look for unused ones, after each 700 new ones, takes a second.
    gc.set_threshold(100_000)
    try:
        code = options.verb(options) or DONE
        if sys.stdout and not sys.stdout.closed:
            sys.stdout.flush()  # Here, where a reader that has exited is no error.
        return code
    except Error as error:
        advice = (
            "" if error.kind == "another_run" and not hasattr(options, "start_over") else ADVICE.get(error.kind, "")
        )
        output.write(f"colabcnn: {error}{advice}", stream=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt as interrupt:
        if not isinstance(interrupt, Interrupted):  # A run has reported its own.
            output.write("\ncolabcnn: interrupted.", stream=sys.stderr)
        return STOPPED
    except BrokenPipeError:
        # The reader of our output has exited, as `| head` does; Python must not flush to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        output.write(f"colabcnn: {error.filename or 'the disk'}: {error.strerror or error}", stream=sys.stderr)
        return BAD_INPUT


def _span(text):
    """Parse `A:B`, either end left out for the end of the data."""
    with contextlib.suppress(ValueError):
        low, high = (float(end) if end else None for end in text.split(":"))
        if math.isfinite(low or 0) and math.isfinite(high or 0):
            return low, high
    raise argparse.ArgumentTypeError(f"{text!r} is not a range; expected LOW:HIGH, such as 250:400")


def _parser():
    parser = _Parser(prog="python -m colabcnn", description=(sys.modules["colabcnn"].__doc__ or "").partition("\n")[0])
    parser.add_argument("--version", action="version", version=f"colabcnn {version.__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_verbs_that_train(subparsers)
    _add_verbs_that_show(subparsers)
    _add_verbs_that_share(subparsers)
    return parser


def _add_verbs_that_train(subparsers):
    demo = _verb(subparsers, verbs.demo, "train on synthetic images, offline; about a minute")
    _option(demo, "--run-dir", "the run's folder", default=verbs.DEMO_FOLDER, metavar="DIR")

    _verb(subparsers, verbs.list_experiments, "the experiments, and what the article reports for each")

    train = _verb(subparsers, verbs.train, "train an experiment, or resume its run with the same command")
    train.add_argument("name", metavar="NAME", help=_NAME_HELP)
    train.add_argument("--run-dir", required=True, metavar="DIR", help="the run's folder; made if missing")
    _add_run_options(train, ("allow_long", "callbacks"))  # These are not for a command line.

    sweep = _verb(subparsers, verbs.sweep, "train many runs, or continue them with the same command; needs dask")
    sweep.add_argument("names", nargs="+", metavar="NAME", help=_NAME_HELP)
    sweep.add_argument("--seeds", required=True, metavar="A:B", help="the seeds A to B - 1, such as 0:5; or one seed")
    sweep.add_argument("--root", required=True, metavar="DIR", help="folder of all runs, each in DIR/<name>/seed-<n>")
    sweep.add_argument(
        "--drive", metavar="DIR", help="folder, such as one on Google Drive: each run is copied to DIR/<name>/seed-<n>"
    )
    _option(sweep, "--jobs", "runs at a time, on this machine", default=1, type=int, metavar="N")
    sweep.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a dask scheduler whose workers can access --root; replaces --jobs"
    )
    _option(sweep, "--retries", "restarts of a run that crashes", default=2, type=int, metavar="N")
    sweep.add_argument("--dry-run", action="store_true", help="only show what each run would do")
    _add_run_options(sweep, OF_ONE_RUN)

    measure = _verb(subparsers, verbs.measure, "measure the speed of a run on this device, into a small file to send")
    _option(measure, "--output", "folder for the file", "-o", default="measured", metavar="DIR")
    measure.add_argument("--data", default="cifar10", metavar="DATA", help=HELP["data"])
    _option(measure, "--train-size", "training images at most", default=50000, type=int, metavar="N")
    _option(measure, "--val-size", "validation images at most", default=10000, type=int, metavar="N")
    _option(measure, "--minutes", "time limit of the measurement", default=10, type=float, metavar="M")
    measure.add_argument("--sent-by", default="", metavar="NAME", help="a name for the credits (default: none)")


def _add_verbs_that_show(subparsers):
    status = _verb(subparsers, verbs.status, "the status of a run, by its newest checkpoint")
    status.add_argument("run_dir", **_RUN_DIR)
    status.add_argument("--json", action="store_true", help="one line of JSON")
    status.add_argument(
        "--verify",
        action="store_true",
        help="check every checkpoint against its digest, and report which one a resume continues from",
    )

    evaluate = _verb(
        subparsers, verbs.evaluate, "measure a run's last and best epoch on the test set; test.json keeps the result"
    )
    evaluate.add_argument("run_dir", **_RUN_DIR)
    evaluate.add_argument(
        "--data",
        metavar="DATA",
        help="the folder of CIFAR-10, if the run was trained on it (default: found as `train` finds it)",
    )

    summary = _verb(subparsers, verbs.summary, "the article's table beside measured results")
    summary.add_argument("results", metavar="DIR", help="a folder of <experiment>/seed-<n>/, each a run's folder")
    summary.add_argument("--markdown", action="store_true", help="tables in Markdown")
    summary.add_argument("--figures", metavar="FOLDER", help="draw the pictures that go with it into this folder")

    plot = _verb(subparsers, verbs.plot, "draw the curves of one run or several")
    plot.add_argument("run_dirs", nargs="+", metavar="DIR", help="runs, or folders of runs")
    plot.add_argument("-o", "--output", required=True, metavar="FILE.png", help="png, svg or pdf, by its ending")
    plot.add_argument("--metric", metavar="M", help="accuracy or loss (default: both, side by side)")
    plot.add_argument("--epochs", type=_span, metavar="A:B", help="zoom to these epochs")
    plot.add_argument("--range", type=_span, metavar="LO:HI", help="zoom to these values; needs --metric")
    plot.add_argument("--line", type=float, metavar="Y", help="a guide line, such as 0.9")

    explore = _verb(subparsers, verbs.explore, "write the curves of runs as a page to zoom in, offline")
    explore.add_argument("run_dirs", nargs="+", metavar="DIR", help="runs, or folders of runs")
    _option(explore, "--output", "the page", "-o", default="curves.html", metavar="FILE.html")

    predict = _verb(subparsers, verbs.predict, "classify a picture with a run's best weights")
    predict.add_argument("run_dir", **_RUN_DIR)
    predict.add_argument("picture", metavar="PICTURE", help="an image file, at most 89 million pixels")
    predict.add_argument("-o", "--output", metavar="FILE.png", help="draw the picture and the probabilities")


def _add_verbs_that_share(subparsers):
    export = _verb(subparsers, verbs.export, "write a run into one file, to be shared")
    export.add_argument("run_dir", **_RUN_DIR)
    export.add_argument(
        "-o", "--output", required=True, metavar="FILE.safetensors", help="the file, or a folder for it"
    )
    export.add_argument("--checkpoint", action="store_true", help="include all that is needed to continue training")

    fetch = _verb(subparsers, verbs.fetch, "download a shared run, and check it")
    fetch.add_argument("source", metavar="SOURCE", help="a URL, a link to a file on Google Drive or its id, or a file")
    fetch.add_argument("--sha256", metavar="HEX", help="the file's SHA-256, from its sender")
    _option(fetch, "--folder", "where fetched runs are kept", default="fetched", metavar="DIR")


def _add_run_options(parser, without):
    """Add the options of `run` but those `without`, with their types, defaults and help texts."""
    for option in fields(RunRequest):
        if option.name not in HELP or option.name in without:
            continue
        hint = get_type_hints(RunRequest)[option.name]
        kinds = [kind for kind in (int, float, str) if kind in (hint, *get_args(hint))]
        # Of the types "number or None" and "text or path", argparse needs the first.
        value = {"type": kinds[0], "default": option.default} if kinds else {"action": "store_true"}
        parser.add_argument(f"--{option.name.replace('_', '-')}", help=HELP[option.name], **value)


def _option(parser, name, text, *short, **how):
    """Add an option whose help shows its default."""
    parser.add_argument(*short, name, help=f"{text} (default: %(default)s)", **how)


def _verb(subparsers, function, text):
    """Return the parser of a verb, which is the first word of its function's name."""
    name = function.__name__.partition("_")[0]
    verb = subparsers.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    verb.set_defaults(verb=function)
    return verb
