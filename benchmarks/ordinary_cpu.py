"""An epoch of 06_final in float32 on a processor without AVX-512: python benchmarks/ordinary_cpu.py DATA

Ours with TensorFlow's oneDNN operations, as `train` runs it; ours without them, TensorFlow's default there; and
PyTorch, eager. Each side has its own process and they alternate, one epoch each; the ratios are medians over the
rounds. The page goes to results/benchmarks/<device>-float32-avx2.md. On a processor with AVX-512, oneDNN, PyTorch and
MKL are limited to AVX2 by their own settings, and the page names these.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from comparisons import our_epoch, split_of, val_size_of, versions_of
from processes import ROOT

LIMIT_TO_AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
SIDES = {
    "ours": {"TF_ENABLE_ONEDNN_OPTS": "1"},
    "ours without oneDNN": {"TF_ENABLE_ONEDNN_OPTS": "0"},
    "PyTorch, eager": {},
}
READY = "ready"


def main():
    options = parse()
    if options.side:
        return train_on_request(options)
    limits = {} if not has_avx512() else LIMIT_TO_AVX2
    sides = {name: start_side(name, {**limits, **variables}) for name, variables in SIDES.items()}
    try:
        about, *_ = [wait_for(side, READY) for side in sides.values()]
        for side in sides.values():
            seconds_of_epoch(side)  # The first epoch compiles.
        rounds = [one_round(sides, number) for number in range(options.pairs)]
    finally:
        for side in sides.values():
            side.kill()
    write_page(about, limits, rounds, options)


def one_round(sides, number):
    """Return the seconds of an epoch of each side; every other round runs in reverse order."""
    names = list(sides) if number % 2 == 0 else list(reversed(sides))
    seconds = {name: seconds_of_epoch(sides[name]) for name in names}
    print(f"round {number + 1}: " + ", ".join(f"{name} {seconds[name]:.2f} s" for name in sides), flush=True)
    return seconds


def start_side(name, variables):
    command = [sys.executable, __file__, *sys.argv[1:], "--side", name]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment | variables, text=True, bufsize=1, stdin=pipe, stdout=pipe)


def wait_for(side, word):
    """Return the rest of the next line of a side's output that begins with a word."""
    for line in side.stdout:
        if line.startswith(word):
            return line.removeprefix(word).strip()
    sys.exit(f"a side ended with {side.wait()} before it printed {word!r}")


def seconds_of_epoch(side):
    side.stdin.write("\n")
    return float(wait_for(side, "seconds"))


def train_on_request(options):
    """Train one epoch for each line of standard input, and print its seconds."""
    import time

    import peers
    from colabcnn.network import devices

    split = split_of(options)
    with tempfile.TemporaryDirectory() as folder:
        epoch = peers.plain_torch(split) if "PyTorch" in options.side else our_epoch(split, "float32", folder)
        versions = devices.versions() | versions_of("torch")
        print(READY, devices.device_name(), "|", ", ".join(f"{n} {v}" for n, v in versions.items()), flush=True)
        for _ in sys.stdin:
            began = time.perf_counter()
            counted = epoch()
            print("seconds", time.perf_counter() - began if counted is None else counted, flush=True)


def has_avx512():
    return "avx512f" in Path("/proc/cpuinfo").read_text()


def write_page(about, limits, rounds, options):
    device, versions = (part.strip() for part in about.split("|"))
    setting = (
        f"limited to AVX2 by {' '.join(f'{name}={value}' for name, value in limits.items())}"
        if limits
        else "with all of its instructions"
    )
    ours, without, _ = names = list(SIDES)
    lines = [
        f"# An epoch of 06_final in float32 on a processor without AVX-512: {device}, {setting}",
        "",
        f"`python benchmarks/ordinary_cpu.py DATA`. {versions}. Each side is a process; they take turns, one epoch of "
        f"{options.images:,} training images and {val_size_of(options.images):,} to validate on, in batches of 128. "
        "Ours augments and keeps a history. Above 1, ours is faster.",
        "",
        "| ours with oneDNN, against | images/s, ours | theirs | ratio, median | the rounds' ratios |",
        "| --- | --- | --- | --- | --- |",
    ]
    speeds = {name: options.images / statistics.median(seconds[name] for seconds in rounds) for name in names}
    for name in names[1:]:
        ratios = [seconds[name] / seconds[ours] for seconds in rounds]
        lines.append(
            f"| {name} | {speeds[ours]:.0f} | {speeds[name]:.0f} | **{statistics.median(ratios):.2f}** | "
            f"{' '.join(f'{ratio:.2f}' for ratio in ratios)} |"
        )
    ratios = [seconds["PyTorch, eager"] / seconds[without] for seconds in rounds]
    lines += ["", f"Without oneDNN, ours reaches {statistics.median(ratios):.2f} of PyTorch's speed."]
    path = ROOT / "results" / "benchmarks" / f"{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}-float32-avx2.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines), path, sep="\n")


def parse():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", nargs="?", default="synthetic", help="the folder of CIFAR-10 (default: synthetic)")
    parser.add_argument("--images", type=int, default=1024, help="training images an epoch (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=7, help="rounds (default: %(default)s)")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
