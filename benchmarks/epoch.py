"""An epoch of 06_final as `train` runs it, against other ways of training it: python benchmarks/epoch.py

Every comparison runs in its own process, where both sides alternate; the ratio is the median of the pairs' ratios. The
table goes to results/benchmarks/<device>-<precision>.md. Ours is an epoch of `run`: images gathered from the resident
set and augmented in the step, dropout reseeded, validation, history and checkpoints. The others only train and
validate. `--only NAME` makes one comparison and prints its pairs. On a GPU or TPU, and with `--seconds`, the most
useful comparisons come first (`by_worth.py`), and the page names the missing ones. The peers need more packages than
the library: pip install jax optax scipy torch==2.13.0 (for Python 3.11, on a CPU). Without TensorFlow, everything is
compared under JAX.
"""

import resource
import statistics
import tempfile

import by_worth
import processes
from comparisons import (
    against,
    by_jax,
    by_tensorflow,
    device,
    in_words,
    our_epoch,
    seconds_of_endings,
    split_of,
    start_up,
)
from pages import heading, of_pairs, table_of_pairs


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
    """Return a measurement of a process's peak memory at full size, in 20 steps and validation."""

    def measurement(options):
        import peers
        from colabcnn.network.keras_types import FitCallback

        class StopAfterSteps(FitCallback):
            def on_train_batch_end(self, batch, logs=None):
                if batch >= 20:
                    self.model.stop_training, self.model.within_epoch = True, False  # At once.

        split = split_of(options, images=50000, val_size=2500)
        with tempfile.TemporaryDirectory() as folder:
            epoch = (
                our_epoch(split, "auto", folder) if side == "ours" else peers.keras_fit(split, precision=in_words(side))
            )
            epoch([StopAfterSteps()])
        return {"megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)}

    return measurement


def endings(options):
    """Return the longest time from the end of an epoch to that of its `fit`, of five epochs, for ours and (c)."""
    import peers

    split = split_of(options)
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, epoch in (("ours", our_epoch(split, "auto", folder)), ("theirs", peers.keras_fit(split))):
            measured[name] = round(seconds_of_endings(epoch), 2)
    return {"ends": measured}


def by_size(options):
    """Return images a second of our epoch for several batch sizes and numbers of images."""
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
PEERS_BY_WORTH = (
    "(d) plain JAX and optax, one scan, under JAX",
    "(e) PyTorch, eager",
    "(e) PyTorch, compiled",
    "(c) fit, no augmentation, the same precision",
    "(a) fit on ImageDataGenerator.flow",
)


def is_by_worth(device, options):
    return not device["cpu"] or options.seconds is not None


def order(device, options):
    """Return the names of the comparisons in their order on this device."""
    return by_worth.order(device, PEERS_BY_WORTH) if is_by_worth(device, options) else list(COMPARISONS)


def page(rows, options):
    """Return the measurements as the lines of a Markdown page."""
    if is_by_worth(rows["device"], options):
        return by_worth.page(rows, options)
    about = rows["device"]
    method = (
        f"{of_pairs(options)} Above 1, ours is faster. Ours augments and keeps a history; the others do what their "
        "line names, and validate. Work that is done once a run, before and after its epochs, is not timed, nor the "
        "picture, which is drawn every 30 s at most."
    )
    columns = ("against", "precision, ours and theirs", "ours, images/s", "theirs")
    lines = [
        *heading("An epoch of 06_final on", "epoch", method, rows, options),
        "",
        *table_of_pairs(columns, rows),
        "",
    ]
    if speed := next((row["first"] for row in rows.values() if "ratio" in row), None):
        reached, limit = speed * about["gflop_an_image"], about["gflops"][about["precision"]]
        lines += [
            f"- **An epoch** of 50,000 images at that speed, with its validation: {50_000 / speed:.3g} s.",
            f"- **Share of the limit:** {about['gflop_an_image']} GFLOP an image to train (counted from the layers; "
            f"validation comes on top), so {reached:.0f} GFLOP/s; one large matrix product in that precision reaches "
            f"{limit} GFLOP/s here: {100 * reached / limit:.0f} %.",
        ]
    memory = {name: row["megabytes"] for name, row in rows.items() if "megabytes" in row}
    if memory:
        memory_text = "; ".join(f"{name.removeprefix('memory, ')} {value:,} MB" for name, value in memory.items())
        lines.append(
            f"- **Peak memory** with 50,000 images, 20 steps and validation on 2,500: {memory_text} (of the process, "
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
    comparisons = {"device": device, **COMPARISONS, **by_worth.MEASUREMENTS}
    pages = {"": page, "where-time-goes": by_worth.trace_page}
    processes.main(processes.Benchmark(__file__, __doc__ or "", comparisons, pages, order, by_worth.XLA_FLAGS))
