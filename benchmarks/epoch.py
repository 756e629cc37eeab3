"""An epoch of 06_final as `train` runs it, against other ways of training it: python benchmarks/epoch.py

Every comparison is a process of its own, in which both sides take turns; the ratio is the median of the pairs'. The
table goes to results/benchmarks/<device>.md. Ours is all of an epoch: images gathered from the resident set and
augmented in the step, dropout reseeded, validation, history, picture and checkpoint. The others only train and
validate. `--only NAME` makes one comparison and prints its pairs. The peers need more packages than the library:
pip install optax scipy torch==2.13.0 (for Python 3.11, on a CPU).
"""

import argparse
import json
import math
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VAL_SIZE = 250
# Of one image, forward and backward; see `gflop_an_image`.
TRAINING_PASSES = 3


def main():
    options = parse()
    if options.only:
        print(json.dumps(COMPARISONS[options.only](options)))
        return
    rows = {}
    for name in COMPARISONS:
        began = time.monotonic()
        rows[name] = in_a_process(__file__, name, options)
        print(f"{name}: {rows[name]} ({time.monotonic() - began:.0f} s)", flush=True)
    path = ROOT / "results" / "benchmarks" / f"{slug(rows['device']['device'])}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(table(rows, options))
    print(path)


def parse(description=__doc__, comparisons=None):
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("data", nargs="?", default="synthetic", help="the folder of CIFAR-10 (default: drawn by code)")
    parser.add_argument("--images", type=int, default=1280, help="training images an epoch (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--only", choices=comparisons or COMPARISONS, metavar="NAME", help="one of: %(choices)s")
    return parser.parse_args()


def in_a_process(script, name, options):
    """Return what one comparison of a script says, or a dict with `failed`."""
    backend = "jax" if name.endswith("under JAX") else os.environ.get("KERAS_BACKEND", "tensorflow")
    command = [sys.executable, script, options.data, "--images", str(options.images), "--pairs", str(options.pairs)]
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([*command, "--only", name], env=environment, capture_output=True, text=True)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["?"])[-1][:200]}
    return json.loads(done.stdout.splitlines()[-1])


def split_of(options, *, images=None, val_size=VAL_SIZE):
    from colabcnn.data import load_split

    return load_split(options.data, train_size=images or options.images, val_size=val_size)


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
            return compare("train", mine, peer, theirs, images=options.images, pairs=options.pairs)

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
            epoch = our_epoch(split, "auto", folder) if side == "ours" else peers.keras_fit(split, precision=side)
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
began = time.monotonic()
import keras, colabcnn
from colabcnn.training import run
imported = time.monotonic()
class First(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        float(logs["loss"])
        print(time.monotonic() - imported, imported - began, flush=True)
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
    for batch_size, images in ((32, options.images), (128, options.images), (512, options.images), (128, 8 * 1280)):
        split = split_of(options, images=images)
        experiment = replace(peers.EXPERIMENT, name="sized", batch_size=batch_size)
        with tempfile.TemporaryDirectory() as folder:
            epoch = our_epoch(split, "auto", folder, experiment)
            epoch()
            seconds = [epoch() for _ in range(3)]
        measured[f"{batch_size} of {images}"] = round(images / sorted(seconds)[1], 1)
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
        "versions": devices.versions(),
        "platform": platform.platform(),
        "precision": precision,
        "execution": repr(devices.auto_execution()),
        "gflop_an_image": round(gflop_an_image(build_model(ABLATIONS["06_final"])), 3),
        "gflops": round(2 * size**3 / min(seconds) / 1e9),
    }


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
    "endings": endings,
    "start-up": start_up,
    "start-up under JAX": start_up,
    "sizes": by_size,
}


def table(rows, options):
    """Return what was measured as a Markdown page."""
    told = rows["device"]
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    lines = [
        f"# An epoch of 06_final on {told['device']}",
        "",
        f"`python benchmarks/epoch.py`: {options.images} training images an epoch, {VAL_SIZE} to validate on, "
        f"batches of 128, `auto` being {told['precision']} and {told['execution']}. {versions}; {told['platform']}. "
        f"Medians of {options.pairs} interleaved pairs; above 1, ours is faster. Ours augments, keeps a "
        "history and a picture; the others do what their line says, and validate.",
        "",
        "| against | ours, images/s | theirs | ratio | the pairs' ratios |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row in rows.items():
        if {"ratio", "failed"} & set(row):
            lines.append(line_of(name, row))
    speed = next((row["first"] for row in rows.values() if "ratio" in row), 0)
    reached = speed * told["gflop_an_image"]
    lines += [
        "",
        f"- **Share of the limit:** {told['gflop_an_image']} GFLOP an image (counted from the layers), so "
        f"{reached:.0f} GFLOP/s; one large matrix product in that precision reaches {told['gflops']} GFLOP/s here: "
        f"{100 * reached / told['gflops']:.0f} %.",
    ]
    if "megabytes" in rows["memory, ours"] and "megabytes" in rows["memory, (c) in float32"]:
        lines.append(
            f"- **Peak memory** with all of CIFAR-10, 20 steps and validation: {rows['memory, ours']['megabytes']:,} "
            f"MB; (c) in float32 {rows['memory, (c) in float32']['megabytes']:,} MB."
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
        speeds = "; ".join(f"{name} images: {value}" for name, value in rows["sizes"]["speeds"].items())
        lines.append(f"- **Images a second by batch**: {speeds}.")
    return "\n".join(lines) + "\n"


def line_of(name, row):
    """Return a comparison's line of a table: both speeds, the median ratio and the pairs' ratios."""
    if "failed" in row:
        return f"| {name} | not yet measured: {row['failed']} | | | |"
    pairs = " ".join(f"{ratio:.2f}" for ratio in row["ratios"])
    return f"| {name} | {row['first']:.0f} | {row['second']:.0f} | **{row['ratio']:.2f}** | {pairs} |"


def slug(name):
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    main()
