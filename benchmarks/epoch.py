"""An epoch of 06_final as `train` runs it, against other ways of training it: python benchmarks/epoch.py

Every comparison is a process of its own, in which both sides take turns; the ratio is the median of the pairs'. The
table goes to results/benchmarks/<device>-<precision>.md. Ours is an epoch of `run`: images gathered from the resident
set and augmented in the step, dropout reseeded, validation, history and checkpoints. The others only train and
validate. `--only NAME` makes one comparison and prints its pairs. The peers need more packages than the library:
pip install jax optax scipy torch==2.13.0 (for Python 3.11, on a CPU). Where TensorFlow is not installed, all is
compared under JAX.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile

from comparisons import (
    by_jax,
    by_tensorflow,
    compare_epochs,
    heading,
    in_words,
    our_epoch,
    run_all,
    seconds_of_endings,
    split_of,
)


def against(peer, ours="auto", **peer_options):
    """Return a comparison of our epoch with a peer's."""

    def comparison(options):
        import peers

        split = split_of(options)
        with tempfile.TemporaryDirectory() as folder:
            mine = our_epoch(split, ours, folder)
            theirs = getattr(peers, peer)(split, **{key: in_words(value) for key, value in peer_options.items()})
            precisions = ours, peer_options.get("precision", "float32")
            return compare_epochs(mine, peer, theirs, precisions, options)

    return comparison


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
            measured[name] = round(seconds_of_endings(epoch), 2)
    return {"ends": measured}


def start_up(options):
    """Return the seconds from `run` to the end of the first step, in three processes one after the other."""
    code = """
import sys, time
import keras
from colabcnn.training.run import run
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


COMPARISONS = {
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


def page(rows, options):
    """Return what was measured as the lines of a Markdown page."""
    told = rows["device"]
    said = (
        "Above 1, ours is faster. Ours augments and keeps a history; the others do what their line says, and validate. "
        "Outside the clock is what comes once a run, before and after its epochs, and the picture, drawn every 30 s at "
        "most."
    )
    columns = ("against", "precision, ours and theirs", "ours, images/s", "theirs")
    lines = heading("An epoch of 06_final on", __file__, said, rows, options, columns)
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
    return lines


if __name__ == "__main__":
    run_all(__file__, __doc__, COMPARISONS, page)
