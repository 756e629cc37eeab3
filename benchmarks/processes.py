"""Run a benchmark's comparisons, each in its own process and within a time limit, and write its pages."""

import argparse
import contextlib
import importlib.util
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pages import page_name

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
PAGES = ROOT / "results" / "benchmarks"
CPU_IMAGES = 1280
# No comparison starts with less time left than this.
LEAST_SECONDS = 1
# A comparison may take the larger of these shares of the remaining and of the total time; the first compiles most.
SHARE_OF_REMAINING, SHARE_OF_ALL = 1 / 2, 1 / 4
# A comparison leaves this part of its share unused.
MARGIN = 1 / 10


@dataclass(frozen=True)
class Benchmark:
    """A script that makes comparisons and writes pages with their results.

    Args:
        script: its path.
        doc: its docstring.
        comparisons: dict from name to a function that takes the options and returns a dict that JSON can hold. The one
            named `device` comes first and returns at least `device`, `precision` and `cpu`, a bool.
        pages: dict from the suffix of a page's name to a function that takes all of these dicts by name and the
            options; it returns the lines of a Markdown page, or None. The dict of a comparison that was not reached is
            empty; that of a failed one holds `failed`, the reason.
        order: function that takes the device's dict and the options; it returns the names, the most useful first.
        xla_flags: dict from a comparison's name to the flags that XLA gets in its process.
    """

    script: str
    doc: str
    comparisons: dict[str, Callable]
    pages: dict[str, Callable]
    order: Callable
    xla_flags: dict[str, str] = field(default_factory=dict)


def main(benchmark):
    """Make the comparisons and write the pages after each; with `--only`, make one comparison and print it."""
    began = time.monotonic()
    options = _parse(benchmark)
    # Each comparison stops a little early, so that its end is within its time, too.
    options.until = began + (options.seconds or math.inf) - (MARGIN * (options.seconds or 0) if options.only else 1)
    if options.only:
        options.images = options.images or CPU_IMAGES
        print(json.dumps(benchmark.comparisons[options.only](options)))
        return
    # As after Ctrl-C, the comparison's process must not outlive this one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    device = _measure("device", benchmark, options)
    if "failed" in device:
        sys.exit(1)
    # On an accelerator a short epoch would measure mostly the overhead.
    options.images = options.images or (CPU_IMAGES if device["cpu"] else 50_000)
    rows = {"device": device, **{name: {} for name in benchmark.order(device, options)}}
    written = write_pages(benchmark, rows, options)
    for name in list(rows)[1:]:
        if options.until - time.monotonic() > LEAST_SECONDS:
            rows[name] = _measure(name, benchmark, options)
            written = write_pages(benchmark, rows, options)
    print(*written, sep="\n")


def _parse(benchmark):
    parser = argparse.ArgumentParser(description=benchmark.doc.splitlines()[0])
    parser.add_argument("data", nargs="?", default="synthetic", help="the folder of CIFAR-10 (default: synthetic)")
    images_help = f"training images an epoch (default: {CPU_IMAGES} on a CPU, else 50000)"
    parser.add_argument("--images", type=int, help=images_help)
    parser.add_argument("--pairs", type=int, default=7, help="pairs of epochs, or epochs, to time (default: 7)")
    seconds_help = "for everything; the most useful comparisons come first, the page names the missing ones"
    parser.add_argument("--seconds", type=float, help=seconds_help)
    parser.add_argument("--only", choices=benchmark.comparisons, metavar="NAME", help="one of: %(choices)s")
    return parser.parse_args()


def _measure(name, benchmark, options):
    """Run a comparison within its share of the time; print and return its result."""
    began = time.monotonic()
    remaining, share = options.until - began, None
    if options.seconds:
        share = min(remaining, max(SHARE_OF_REMAINING * remaining, SHARE_OF_ALL * options.seconds))
    row = in_a_process(benchmark, name, options, share)
    print(f"{name}: {row} ({time.monotonic() - began:.0f} s)", flush=True)
    return row


def in_a_process(benchmark, name, options, seconds=None):
    """Return the result of one comparison, or a dict with `failed`.

    Args:
        benchmark: `Benchmark`.
        name: the comparison's.
        options: as parsed.
        seconds: after which its process and all its child processes are stopped; None is no limit.
    """
    command = [sys.executable, benchmark.script, options.data, "--pairs", str(options.pairs), "--only", name]
    command += ["--images", str(options.images)] if options.images else []
    command += ["--seconds", str(seconds)] if seconds else []
    environment = _environment(name, benchmark.xla_flags.get(name))
    # Files, not pipes: a child process may keep a pipe open.
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=errors, start_new_session=True)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            return {"failed": f"stopped after {seconds:.0f} s"}
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        texts = [(file.seek(0), file.read())[1] for file in (output, errors)]
    return _result(process.returncode, *texts)


def _environment(name, xla_flags):
    installed = "tensorflow" if importlib.util.find_spec("tensorflow") else "jax"
    backend = "jax" if name.endswith("under JAX") else os.environ.get("KERAS_BACKEND", installed)
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    # Two libraries share a GPU's memory in one process.
    environment |= {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    # A hundred small programs take as long to compile as the large one.
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    if xla_flags is not None:
        environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {xla_flags}".strip()
    return environment


def _result(returncode, output, errors):
    if returncode == 0:
        with contextlib.suppress(ValueError, IndexError):
            return json.loads(output.splitlines()[-1])
        return {"failed": "it printed no result"}
    lines = [line for line in errors.splitlines() if line.strip()] or [f"it ended with {returncode}"]
    error_lines = [line for line in lines if re.search(r"^[\w.]+(Error|Exception)\b|Illegal value|Unknown flag", line)]
    # A bar would end the cell of the page's table.
    return {"failed": (error_lines or lines)[-1].strip().replace("|", "/")[:200]}


def write_pages(benchmark, rows, options):
    """Write the benchmark's pages with the results so far, each atomically, and return their paths."""
    from colabcnn.store.files import write_atomically

    PAGES.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix, page in benchmark.pages.items():
        lines = page(rows, options)
        if lines is not None:
            written.append(PAGES / page_name(rows["device"]["device"], rows["device"]["precision"], suffix))
            write_atomically(written[-1], "\n".join(lines) + "\n")
    return written
