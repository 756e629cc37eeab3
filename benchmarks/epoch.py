"""An epoch of 06_final as `train` runs it, against other ways of training it: python benchmarks/epoch.py

Every comparison is a process of its own, in which both sides take turns; the ratio is the median of the pairs'. The
table goes to results/benchmarks/<device>-<precision>.md. Ours is an epoch of `run`: images gathered from the resident
set and augmented in the step, dropout reseeded, validation, history and checkpoints. The others only train and
validate. `--only NAME` makes one comparison and prints its pairs. The peers need more packages than the library:
pip install jax optax scipy torch==2.13.0 (for Python 3.11, on a CPU). Where TensorFlow is not installed, all is
compared under JAX.
"""

import argparse
import importlib.util
import json
import math
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Of one image, forward and backward; see `gflop_an_image`.
TRAINING_PASSES = 3


def main():
    options = parse()
    if options.only:
        options.images = options.images or 1280
        print(json.dumps(COMPARISONS[options.only](options)))
        return
    write(make_all(__file__, COMPARISONS, options), table, options)


def make_all(script, comparisons, options):
    """Return what the comparisons of a script say, by name, the device first."""
    rows = {}
    for name in comparisons:
        began = time.monotonic()
        rows[name] = in_a_process(script, name, options)
        print(f"{name}: {rows[name]} ({time.monotonic() - began:.0f} s)", flush=True)
        if name == "device":
            if "failed" in rows[name]:
                sys.exit(1)
            # Of an accelerator a short epoch would measure what surrounds it.
            options.images = options.images or (1280 if rows[name]["cpu"] else 50_000)
    return rows


def write(rows, table, options, suffix=""):
    device = rows["device"]
    name = re.sub(r"[^a-z0-9]+", "-", f"{device['device']} {device['precision']}{suffix}".lower())
    path = ROOT / "results" / "benchmarks" / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(table(rows, options))
    print(path)


def parse(description=__doc__, comparisons=None):
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("data", nargs="?", default="synthetic", help="the folder of CIFAR-10 (default: drawn by code)")
    parser.add_argument("--images", type=int, help="training images an epoch (default: 1280 on a CPU, else 50000)")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--only", choices=comparisons or COMPARISONS, metavar="NAME", help="one of: %(choices)s")
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
    from colabcnn.data import load_split

    images = images or options.images
    return load_split(options.data, train_size=images, val_size=val_size or val_size_of(images))


def val_size_of(images):
    return max(250, images // 5 // 250 * 250)


def our_epoch(split, precision, folder, experiment=None, execution=None):
    """Return a function that trains one more epoch as `run` does, and returns its seconds."""
    import keras

    from colabcnn import ABLATIONS, devices
    from colabcnn.session import compiled_model, fit_options
    from colabcnn.trainer import PlanEpoch
    from recording import Clock, quiet_recorder

    class StopAfterOne(keras.callbacks.Callback):
        """Stands behind the recorder, which so takes no epoch for the last one."""

        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    experiment, execution = experiment or ABLATIONS["06_final"], execution or devices.auto_execution()
    precision = devices.auto_precision() if precision == "auto" else precision
    sizes = {"train_size": len(split.train_labels), "val_size": len(split.val_labels)}
    model = compiled_model(experiment, split, seed=0, precision=precision, execution=execution)
    plan = PlanEpoch(experiment, 0, sizes["train_size"])
    recorder = quiet_recorder(Path(folder), experiment, checkpoint_minutes=1)
    clock = Clock()

    def epoch(callbacks=()):
        done = len(recorder.history["epoch"])
        # `epochs` far ahead: the end of a run takes a checkpoint whatever the clock says.
        model.fit(
            **fit_options(model, sizes),
            initial_epoch=done,
            epochs=done + 700,
            callbacks=[plan, recorder, StopAfterOne(), *callbacks, clock],
        )
        return clock.seconds

    return epoch


def against(peer, ours="auto", **peer_options):
    """Return a comparison of our epoch with a peer's."""

    def comparison(options):
        import peers
        from pairs import compare

        split = split_of(options)
        with tempfile.TemporaryDirectory() as folder:
            mine = our_epoch(split, ours, folder)
            theirs = getattr(peers, peer)(split, **{key: in_words(value) for key, value in peer_options.items()})
            precisions = in_words(ours), in_words(peer_options.get("precision", "float32"))
            return compare("train", mine, peer, theirs, images=options.images, pairs=options.pairs) | {
                "precisions": [precision.removeprefix("mixed_") for precision in precisions]
            }

    return comparison


def in_words(value):
    """Return what "auto" stands for on this device."""
    from colabcnn import devices

    return devices.auto_precision() if value == "auto" else value


def augmentation(compiled):
    """Return a comparison of `augment` with `ImageDataGenerator.flow`."""

    def comparison(options):
        import numpy as np

        import peers
        from colabcnn import augment, plan_epoch
        from pairs import compare

        split = split_of(options, images=2048)
        plan = plan_epoch(0, 1, size=2048, augmentation=peers.EXPERIMENT.augmentation)
        batches = [slice(start, start + peers.BATCH_SIZE) for start in range(0, 2048, peers.BATCH_SIZE)]
        images = split.train_images.astype(np.float32)
        flow = peers.generator().flow(images, split.train_labels, batch_size=peers.BATCH_SIZE)
        function = compiled(augment)

        def ours():
            for batch in batches:
                transforms = {name: values[batch] for name, values in plan.transforms.items()}
                np.asarray(function(split.train_images[plan.rows[batch]], **transforms))

        def theirs():
            for _ in batches:
                next(flow)

        return compare("augment", ours, "ImageDataGenerator.flow", theirs, images=2048, pairs=options.pairs)

    return comparison


def by_jax(function):
    import jax

    return jax.jit(function)


def by_tensorflow(xla):
    def compiled(function):
        import tensorflow as tf

        return tf.function(function, jit_compile=xla)

    return compiled


def peak_memory(side):
    """Return a measurement of the most memory that a process takes at full size, in 20 steps and validation."""

    def measurement(options):
        import keras

        import peers

        class StopAfterSteps(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                self.model.stop_training = self.model.stop_training or batch >= 20

        split = split_of(options, images=50000, val_size=2500)
        with tempfile.TemporaryDirectory() as folder:
            epoch = (
                our_epoch(split, "auto", folder) if side == "ours" else peers.keras_fit(split, precision=in_words(side))
            )
            epoch([StopAfterSteps()])
        return {"megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)}

    return measurement


def endings(options):
    """Return the longest time from the end of an epoch to that of its `fit`, of five epochs, ours and (c)'s."""
    import peers

    split = split_of(options)
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, epoch in (("ours", our_epoch(split, "auto", folder)), ("theirs", peers.keras_fit(split))):
            waited = []
            for _ in range(5):
                began = time.perf_counter()
                seconds = epoch()
                waited.append(time.perf_counter() - began - seconds)
            measured[name] = round(max(waited), 2)
    return {"ends": measured}


def start_up(options):
    """Return the seconds from `run` to the end of the first step, in three processes one after the other."""
    code = """
import sys, time
import keras
from colabcnn.training import run
began = time.monotonic()
class First(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        float(logs["loss"])
        print(time.monotonic() - began, flush=True)
        import os
        os._exit(0)
run("06_final", sys.argv[1], data=sys.argv[2], train_size=None, callbacks=[First()], allow_long=True, quiet=True)
"""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "XDG_CACHE_HOME": f"{folder}/cache"}
        for number in range(3):
            command = [sys.executable, "-c", code, f"{folder}/{number}", options.data]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            seconds.append(round(float(done.stdout.split()[0]), 1))
    return {"seconds": seconds}


def by_size(options):
    """Return images a second of our epoch by the batch, at this number of images, and by the number of images."""
    from dataclasses import replace

    import peers

    measured = {}
    few, many = options.images // 4, min(4 * options.images, 50_000)
    sizes = [(batch_size, options.images) for batch_size in (32, 128, 512)] + [(128, few), (128, many)]
    for batch_size, images in dict.fromkeys(sizes):
        split = split_of(options, images=images)
        experiment = replace(peers.EXPERIMENT, name="sized", batch_size=batch_size)
        with tempfile.TemporaryDirectory() as folder:
            epoch = our_epoch(split, "auto", folder, experiment)
            epoch()
            seconds = [epoch() for _ in range(7)]
        measured[f"batches of {batch_size}, {images} images"] = round(images / statistics.median(seconds))
    return {"speeds": measured}


def device(options):
    """Return the device, the versions, what one image costs, and the arithmetic that the device is seen to do."""
    import platform

    import keras
    import numpy as np

    from colabcnn import ABLATIONS, build_model, devices

    precision = devices.auto_precision()
    dtype = "float32" if precision == "float32" else precision.removeprefix("mixed_")
    size = 2048 if devices.is_cpu() else 8192
    matrix = keras.ops.cast(np.random.default_rng(0).random((size, size), dtype=np.float32), dtype)
    multiply = (by_jax if devices.backend() == "jax" else by_tensorflow(False))(keras.ops.matmul)
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        keras.ops.convert_to_numpy(keras.ops.cast(multiply(matrix, matrix)[0, 0], "float32"))
        seconds.append(time.perf_counter() - began)
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
        "gflops": round(2 * size**3 / min(seconds) / 1e9),
    }


def versions_of(*packages):
    """Return the versions of those of the packages that are installed."""
    return {name: metadata.version(name) for name in packages if importlib.util.find_spec(name)}


def gflop_an_image(network):
    """Return the floating-point operations of training on one image, in 1e9: two a multiply-add, three passes."""
    import keras

    multiply_adds = 0
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            _, rows, columns, _ = layer.output.shape
            multiply_adds += rows * columns * math.prod(layer.kernel.shape)
        elif isinstance(layer, keras.layers.Dense):
            multiply_adds += math.prod(layer.kernel.shape)
    return 2 * TRAINING_PASSES * multiply_adds / 1e9


COMPARISONS = {
    "device": device,
    "(c) fit, no augmentation, float32": against("keras_fit"),
    "(c) fit, no augmentation, the same precision": against("keras_fit", precision="auto"),
    "float32 against (c) in float32": against("keras_fit", "float32"),
    "(a) fit on ImageDataGenerator.flow": against("keras_generator"),
    "(b) fit on tf.data and random layers": against("keras_random_layers"),
    "(e) PyTorch, eager": against("plain_torch", precision="auto"),
    "(e) PyTorch, compiled": against("plain_torch", precision="auto", compiled=True),
    "(c) fit, no augmentation, under JAX": against("keras_fit", precision="auto"),
    "(d) plain JAX and optax, one scan, under JAX": against("plain_jax", precision="auto"),
    "augment against ImageDataGenerator, under JAX": augmentation(by_jax),
    "augment against ImageDataGenerator, tf.function": augmentation(by_tensorflow(False)),
    "augment against ImageDataGenerator, tf.function with XLA": augmentation(by_tensorflow(True)),
    "memory, ours": peak_memory("ours"),
    "memory, (c) in float32": peak_memory("float32"),
    "memory, (c) in the same precision": peak_memory("auto"),
    "endings": endings,
    "start-up": start_up,
    "start-up under JAX": start_up,
    "sizes": by_size,
}


def table(rows, options):
    """Return what was measured as a Markdown page."""
    told = rows["device"]
    lines = [
        f"# An epoch of 06_final on {told['device']}",
        "",
        f"{made_by('epoch.py', told, options)} {val_size_of(options.images)} images to validate on. Above 1, ours is "
        "faster. Ours augments and keeps a history; the others do what their line says, and validate. Outside the "
        "clock is what comes once a run, before and after its epochs, and the picture, drawn every 30 s at most.",
        "",
        "| against | precision, ours and theirs | ours, images/s | theirs | ratio | the pairs' ratios |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in rows.items():
        if {"ratio", "failed"} & set(row):
            lines.append(line_of(name, row))
    speed = next((row["first"] for row in rows.values() if "ratio" in row), 0)
    reached = speed * told["gflop_an_image"]
    lines += [
        "",
        f"- **An epoch** of 50,000 images at that speed, with its validation: {50_000 / speed:.3g} s.",
        f"- **Share of the limit:** {told['gflop_an_image']} GFLOP an image to train (counted from the layers; "
        f"validation comes on top), so {reached:.0f} GFLOP/s; one large matrix product in that precision reaches "
        f"{told['gflops']} GFLOP/s here: {100 * reached / told['gflops']:.0f} %.",
    ]
    memory = {name: row["megabytes"] for name, row in rows.items() if "megabytes" in row}
    if memory:
        told_memory = "; ".join(f"{name.removeprefix('memory, ')} {value:,} MB" for name, value in memory.items())
        lines.append(
            f"- **Peak memory** with 50,000 images, 20 steps and validation on 2,500: {told_memory} (of the process, "
            "not of a GPU)."
        )
    for name in ("start-up", "start-up under JAX"):
        if "seconds" in rows[name]:
            cold, *warm = rows[name]["seconds"]
            lines.append(
                f"- **{name.capitalize().replace('jax', 'JAX')}**, from `run` to the end of the first step: {cold} s, "
                f"then {' and '.join(map(str, warm))} s in new processes."
            )
    if "ends" in rows["endings"]:
        ours, theirs = rows["endings"]["ends"].values()
        lines.append(f"- **The end of `fit`** after its last epoch, the longest of five: {ours} s; (c) {theirs} s.")
    if "speeds" in rows["sizes"]:
        speeds = "; ".join(f"{name}: {value}" for name, value in rows["sizes"]["speeds"].items())
        lines.append(f"- **Images a second**, medians of seven epochs: {speeds}.")
    return "\n".join(lines) + "\n"


def made_by(script, device, options):
    """Return how a table was made: the command, the versions, what `auto` stood for."""
    data = "" if options.data == "synthetic" else " DATA"
    versions = ", ".join(f"{name} {version}" for name, version in device["versions"].items())
    flag = f", {'with' if device['bfloat16'] else 'without'} bfloat16 instructions" if device["cpu"] else ""
    return (
        f"`python benchmarks/{script}{data}` at {device['commit']}. {versions}; {device['platform']}{flag}. `auto` is "
        f"{device['precision']} and {device['execution']}. Medians of {options.pairs} interleaved pairs, in batches of "
        f"128; an epoch is {options.images:,} training images and"
    )


def line_of(name, row):
    """Return a comparison's line of a table: both precisions and speeds, the median ratio and the pairs' ratios."""
    if "failed" in row:
        return f"| {name} | | not yet measured: {row['failed']} | | | |"
    pairs = " ".join(f"{ratio:.2f}" for ratio in row["ratios"])
    precisions = " / ".join(row.get("precisions", ()))
    speeds = f"{row['first']:.0f} | {row['second']:.0f}"
    return f"| {name} | {precisions} | {speeds} | **{row['ratio']:.2f}** | {pairs} |"


if __name__ == "__main__":
    main()
