"""The speed-up of each part of an epoch, with it against without it: python benchmarks/parts.py DATA

As in `epoch.py`, each comparison runs in its own process, where both sides alternate. The table goes to
results/benchmarks/<device>-<precision>-parts.md; DATA is the folder of CIFAR-10. `--only NAME` makes one comparison.
"""

import hashlib
import pickle
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import processes
from comparisons import compare_epochs, device, our_epoch, seconds_of_endings, split_of
from pages import heading, of_pairs, table_of_pairs


def epochs(without, name):
    """Return a comparison of our epoch with one that lacks a part.

    Args:
        without: a function that returns the options of `our_epoch` with and without it.
        name: of the second.
    """

    def comparison(options):
        with_part, without_part = without()
        split = split_of(options)
        precisions = [side.pop("precision", "auto") for side in (with_part, without_part)]
        with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
            ours = our_epoch(split, precisions[0], first, **with_part)
            other = our_epoch(split, precisions[1], second, **without_part)
            return compare_epochs(ours, name, other, precisions, options)

    return comparison


def precisions():
    return {}, {"precision": "float32"}


def fused_batch_norm(precision="auto"):
    from colabcnn.network import devices

    plain = replace(devices.auto_execution(), fused_batch_norm=False)
    return {"precision": precision}, {"precision": precision, "execution": plain}


def xla_augmentation():
    from colabcnn.network import devices

    return {}, {"execution": replace(devices.auto_execution(), xla_augmentation=False)}


def augmented():
    from colabcnn import ABLATIONS

    return {}, {"experiment": replace(ABLATIONS["06_final"], name="plain", augmentation=None)}


def steps_a_call():
    """Use a network so small that a call takes longer than its step; with the article's network a CPU hides this."""
    from colabcnn import ABLATIONS
    from colabcnn.network import devices

    small = {"name": "small", "kernel_sizes": (3,), "filters": (4, 4, 8), "batch_size": 16, "augmentation": None}
    options = {"experiment": replace(ABLATIONS["06_final"], **small), "precision": "float32"}
    single = replace(devices.auto_execution(), steps_per_call=1)
    return {**options, "execution": replace(single, steps_per_call=16)}, {**options, "execution": single}


def endings(options):
    """Return the longest time from an epoch's end to that of its `fit`, of five, for our input and for arrays."""
    from colabcnn.training import executable_model

    def as_arrays(array, batch_size):
        return {"x": array, "batch_size": batch_size}

    split, ours, measured = split_of(options), executable_model.in_batches, []
    for in_batches in (ours, as_arrays):
        executable_model.in_batches = in_batches
        with tempfile.TemporaryDirectory() as folder:
            measured.append(seconds_of_endings(our_epoch(split, "auto", folder)))
    return {"seconds": measured}


def reading(options):
    """Return the seconds to read CIFAR-10 from the page cache, ours and file after file, medians of seven."""
    import numpy as np

    from colabcnn.data import cifar10 as data

    folder = Path(options.data)
    folder = folder / data.FOLDER_NAME if (folder / data.FOLDER_NAME).is_dir() else folder

    def file_after_file():
        images, labels = np.empty((60000, 32, 32, 3), np.uint8), np.empty(60000, np.int64)
        for index, (name, digest) in enumerate(data.FILE_MD5.items()):
            content = (folder / name).read_bytes()
            assert hashlib.md5(content, usedforsecurity=False).hexdigest() == digest
            batch, part = pickle.loads(content, encoding="bytes"), slice(10000 * index, 10000 * (index + 1))
            images[part] = batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            labels[part] = batch[b"labels"]
        return images, labels

    seconds = {data.load_cifar10: [], file_after_file: []}
    for _ in range(8):
        for read, taken in seconds.items():
            began = time.perf_counter()
            read(folder) if read is data.load_cifar10 else read()
            taken.append(time.perf_counter() - began)
    return {"seconds": [statistics.median(taken[1:]) for taken in seconds.values()]}


COMPARISONS = {
    "16 bit, against float32": epochs(precisions, "float32"),
    "BatchNorm as one operation, against Keras's": epochs(fused_batch_norm, "Keras's BatchNorm"),
    "the same in float32": epochs(lambda: fused_batch_norm("float32"), "Keras's BatchNorm"),
    "the augmentation compiled by XLA, against not": epochs(xla_augmentation, "not compiled"),
    "with the augmentation, against without any (1 less its share of an epoch)": epochs(augmented, "no augmentation"),
    "16 steps a call against 1, a tiny network in batches of 16": epochs(steps_a_call, "1 step a call"),
    "16 steps a call against 1, likewise, under JAX": epochs(steps_a_call, "1 step a call"),
    "The end of `fit`, longest of five: an input that is not tuned, against arrays": endings,
    "Reading CIFAR-10 from the page cache: six files side by side and plane by plane, against file after file": reading,
}


def page(rows, options):
    """Return the measurements as the lines of a Markdown page."""
    method = (
        f"{of_pairs(options)} The network is that of 06_final unless noted. Above 1, an epoch with the part is faster."
    )
    columns = ("part", "precision, with it and without", "with it, images/s", "without")
    lines = heading("What each part gains on", "parts", method, rows, options)
    lines += ["", *table_of_pairs(columns, rows), "", "| part | with it | without |", "| --- | --- | --- |"]
    for name, row in rows.items():
        if "seconds" in row:
            ours, theirs = row["seconds"]
            lines.append(f"| {name} | {ours:.2f} s | {theirs:.2f} s |")
    return lines


if __name__ == "__main__":
    comparisons = {"device": device, **COMPARISONS}
    processes.main(processes.Benchmark(__file__, __doc__ or "", comparisons, {"parts": page}, lambda *_: COMPARISONS))
