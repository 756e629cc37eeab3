"""What the benchmarks of an epoch share: comparisons in processes of their own, our epoch, and the page they make."""

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
CPU_IMAGES = 1280


def run_all(script, doc, comparisons, page, suffix=""):
    """Make a script's comparisons, each in a process of its own, and write its page; with `--only`, make one here.

    Args:
        script: the path of the script.
        doc: its docstring.
        comparisons: dict from name to a function that takes the options and returns a dict that JSON can hold.
        page: function that takes all of these dicts by name, the device's first, and the options; it returns Markdown.
        suffix: of the page's name, behind the device and the precision.
    """
    comparisons = {"device": device, **comparisons}
    options = parse(doc, comparisons)
    if options.only:
        options.images = options.images or CPU_IMAGES
        print(json.dumps(comparisons[options.only](options)))
        return
    rows = {}
    for name in comparisons:
        began = time.monotonic()
        rows[name] = in_a_process(script, name, options)
        print(f"{name}: {rows[name]} ({time.monotonic() - began:.0f} s)", flush=True)
        if name == "device":
            if "failed" in rows[name]:
                sys.exit(1)
            # Of an accelerator a short epoch would measure what surrounds it.
            options.images = options.images or (CPU_IMAGES if rows[name]["cpu"] else 50_000)
    told = rows["device"]
    name = re.sub(r"[^a-z0-9]+", "-", f"{told['device']} {told['precision']}{suffix}".lower())
    path = ROOT / "results" / "benchmarks" / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(page(rows, options)) + "\n")
    print(path)


def parse(doc, comparisons):
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("data", nargs="?", default="synthetic", help="the folder of CIFAR-10 (default: drawn by code)")
    images_help = f"training images an epoch (default: {CPU_IMAGES} on a CPU, else 50000)"
    parser.add_argument("--images", type=int, help=images_help)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--only", choices=comparisons, metavar="NAME", help="one of: %(choices)s")
    return parser.parse_args()


def in_a_process(script, name, options):
    """Return what one comparison of a script says, or a dict with `failed`."""
    installed = "tensorflow" if importlib.util.find_spec("tensorflow") else "jax"
    backend = "jax" if name.endswith("under JAX") else os.environ.get("KERAS_BACKEND", installed)
    command = [sys.executable, script, options.data, "--pairs", str(options.pairs)]
    command += ["--images", str(options.images)] if options.images else []
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    # Two libraries share a GPU's memory in one process.
    environment |= {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    done = subprocess.run([*command, "--only", name], env=environment, capture_output=True, text=True)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["?"])[-1][:200]}
    return json.loads(done.stdout.splitlines()[-1])


def split_of(options, *, images=None, val_size=None):
    """Return a `Split`, with a validation image for five training images, as CIFAR-10 has them."""
    from colabcnn.data.split import load_split

    images = images or options.images
    return load_split(options.data, train_size=images, val_size=val_size or val_size_of(images))


def val_size_of(images):
    return max(250, images // 5 // 250 * 250)


def our_epoch(split, precision, folder, experiment=None, execution=None):
    """Return a function that trains one more epoch as `run` does, and returns its seconds."""
    import keras

    from colabcnn import ABLATIONS
    from colabcnn.network import devices
    from colabcnn.network.training_model import PlanEpoch
    from colabcnn.training.session import compiled_model, fit_options
    from recording import Clock, quiet_recording

    class StopAfterOne(keras.callbacks.Callback):
        """Stands behind the recorder, which so takes no epoch for the last one."""

        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    experiment, execution = experiment or ABLATIONS["06_final"], execution or devices.auto_execution()
    precision = devices.auto_precision() if precision == "auto" else precision
    sizes = len(split.train_labels), len(split.val_labels)
    model = compiled_model(experiment, split, seed=0, precision=precision, execution=execution)
    plan = PlanEpoch(experiment, 0, sizes[0])
    recorder, display = quiet_recording(Path(folder), experiment, precision, sizes, checkpoint_minutes=1)
    clock = Clock()

    def epoch(callbacks=()):
        done = len(recorder.history["epoch"])
        # `epochs` far ahead: the end of a run takes a checkpoint whatever the clock says.
        model.fit(
            **fit_options(model, *sizes),
            initial_epoch=done,
            epochs=done + 700,
            callbacks=[plan, recorder, display, StopAfterOne(), *callbacks, clock],
        )
        return clock.seconds

    return epoch


def seconds_of_endings(epoch):
    """Return the longest time from an epoch's end to that of its `fit`, of five."""
    waited = []
    for _ in range(5):
        began = time.perf_counter()
        seconds = epoch()
        waited.append(time.perf_counter() - began - seconds)
    return max(waited)


def compare_epochs(first, name, second, precisions, options):
    """Return what `pairs.compare` says of two functions that train an epoch, and the precisions of both."""
    from pairs import compare

    compared = compare("ours", first, name, second, images=options.images, pairs=options.pairs)
    return compared | {"precisions": [in_words(precision).removeprefix("mixed_") for precision in precisions]}


def in_words(value):
    """Return what "auto" stands for on this device."""
    from colabcnn.network import devices

    return devices.auto_precision() if value == "auto" else value


def by_jax(function):
    import jax

    return jax.jit(function)


def by_tensorflow(xla):
    def compiled(function):
        import tensorflow as tf

        return tf.function(function, jit_compile=xla)

    return compiled


def device(options):
    """Return the device, the versions, what one image costs, and the arithmetic that the device is seen to do."""
    import platform

    from colabcnn import ABLATIONS, build_model
    from colabcnn.network import devices
    from colabcnn.network.arithmetic import gflop_an_image, matrix_gflops

    precision = devices.auto_precision()
    return {
        "device": devices.device_name(),
        "cpu": devices.is_cpu(),
        "bfloat16": devices.cpu_has_bfloat16(),
        "versions": devices.versions() | versions_of("jax", "optax", "torch", "scipy"),
        "commit": devices.commit(),
        "platform": platform.platform(),
        "precision": precision,
        "execution": repr(devices.auto_execution()),
        "gflop_an_image": round(gflop_an_image(build_model(ABLATIONS["06_final"])), 3),
        "gflops": round(matrix_gflops(precision)),
    }


def versions_of(*packages):
    """Return the versions of those of the packages that are installed."""
    return {name: metadata.version(name) for name in packages if importlib.util.find_spec(name)}


def heading(title, script, told, rows, options, columns):
    """Return a page's first lines: how it was made, and a table of the comparisons.

    Args:
        title: of the page, in front of the device.
        script: path of the script.
        told: what the page has to say of its table, as sentences.
        rows: what the comparisons have returned, by name.
        options: as parsed.
        columns: what the first four columns hold; behind them come the ratio and the pairs' ratios.
    """
    device = rows["device"]
    data = "" if options.data == "synthetic" else " DATA"
    versions = ", ".join(f"{name} {version}" for name, version in device["versions"].items())
    flag = f", {'with' if device['bfloat16'] else 'without'} bfloat16 instructions" if device["cpu"] else ""
    made = (
        f"`python benchmarks/{Path(script).name}{data}` at {device['commit']}. {versions}; {device['platform']}{flag}. "
        f"`auto` is {device['precision']} and {device['execution']}. Medians of {options.pairs} interleaved pairs, in "
        f"batches of 128; an epoch is {options.images:,} training images and {val_size_of(options.images):,} to "
        f"validate on. {told}"
    )
    head = [f"# {title} {device['device']}", "", made, ""]
    table = [(*columns, "ratio", "the pairs' ratios"), ("---",) * 6]
    table += [cells_of(name, row) for name, row in rows.items() if {"ratio", "failed"} & set(row)]
    return [*head, *(f"| {' | '.join(cells)} |" for cells in table)]


def cells_of(name, row):
    """Return a comparison's cells: both precisions and speeds, the median ratio and the pairs' ratios."""
    if "failed" in row:
        return name, "", f"not yet measured: {row['failed']}", "", "", ""
    pairs = " ".join(f"{ratio:.2f}" for ratio in row["ratios"])
    precisions = " / ".join(row.get("precisions", ()))
    return name, precisions, f"{row['first']:.0f}", f"{row['second']:.0f}", f"**{row['ratio']:.2f}**", pairs
