"""What `epoch.py` measures on a GPU or TPU, or within a given time: the most useful results first.

The time on such a device may end early, so each value is written to the page as soon as it is known.
"""

import math
import re
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from comparisons import device_memory, in_words, our_epoch, split_of
from pages import heading, missing, of_pairs, table_of_pairs

PRECISIONS = ("mixed_bfloat16", "mixed_float16", "float32")
STEPS_A_CALL = (1, 16, 64, 256)
WHOLE_EPOCH = "the whole epoch in a call"
# A recorded graph is launched in one call. By default XLA records the code between loops, and a loop only if it may
# record the complete body, with the convolutions.
XLA_FLAGS = {
    "XLA's command buffers off": "--xla_gpu_enable_command_buffer=",
    "XLA's command buffers for loops, too": "--xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL,+CONVOLUTION",
}
# The largest share of a comparison's time for the epochs that count.
SHARE_OF_EPOCHS = 1 / 6
TRACED_STEPS_A_CALL = 16
# Dense 16-bit peaks in TFLOP/s by NVIDIA and Google; the first key that the device's name contains is used.
VENDOR_PEAKS = {"H100 PCIe": 756, "H100": 989, "H200": 989, "A100": 312, "L4": 121, "T4": 65, "TPU v5 lite": 197}


def timed(precision="auto", *, steps_a_call=None, batch_size=128, checkpoint=False):
    """Return a measurement of our epoch; `steps_a_call` "all" puts the epoch into one call, None is the default."""

    def measurement(options):
        from colabcnn import ABLATIONS
        from colabcnn.network import devices

        split = split_of(options)
        experiment = replace(ABLATIONS["06_final"], name="timed", batch_size=batch_size)
        steps_per_epoch, execution = math.ceil(options.images / batch_size), devices.auto_execution()
        if steps_a_call:
            steps = steps_per_epoch if steps_a_call == "all" else min(steps_a_call, steps_per_epoch)
            execution = replace(execution, steps_per_call=steps)
        with tempfile.TemporaryDirectory() as folder:
            epoch = our_epoch(split, precision, folder, experiment, execution)
            calls, spans = epochs_in_parts(epoch, math.ceil(steps_per_epoch / execution.steps_per_call), options)
            images = min(calls * execution.steps_per_call * batch_size, options.images)
            row = {
                "precision": in_words(precision).removeprefix("mixed_"),
                "steps_a_call": execution.steps_per_call,
                "batch_size": batch_size,
                "training": 50_000 / images * statistics.median(span["training"] for span in spans),
                "validation": 10_000 / len(split.val_labels) * statistics.median(span["validation"] for span in spans),
                "images": images,
                "epochs": len(spans),
                "plan": statistics.median(span["plan"] for span in spans),
                "rest": statistics.median(span["rest"] for span in spans),
                "memory": device_memory(),
            }
            return row | ({"checkpoint": checkpoint_of(epoch.model, Path(folder))} if checkpoint else {})

    return measurement


def epochs_in_parts(epoch, calls, options):
    """Train epochs, or as many calls of each epoch as the time allows.

    Args:
        epoch: as `our_epoch` returns it.
        calls: of the compiled step in an epoch.
        options: as parsed.

    Returns:
        The number of calls of each, and a list with a dict of `training`, `validation`, `plan` and `rest` in seconds.
    """
    from recording import Spans

    for _ in range(2):  # The first epoch compiles, the second shows the time of a call.
        epoch([one := Spans(calls=1)])
    limit = SHARE_OF_EPOCHS * (options.seconds or math.inf)
    counted = calls if calls * one.training <= limit else max(1, int(limit / one.training))
    if counted == calls:
        epoch()  # Compiles the last, smaller call.
    spans, began = [], time.monotonic()
    while len(spans) < options.pairs and (not spans or time.monotonic() - began < limit):
        epoch([span := Spans(calls=None if counted == calls else counted)])
        spans.append({name: getattr(span, name) for name in ("training", "validation", "plan", "rest")})
    return counted, spans


def checkpoint_of(model, folder):
    """Return the cost of a checkpoint: seconds to read it from the device, seconds to write it, megabytes."""
    from colabcnn.network.variables import read_arrays
    from colabcnn.store.checkpoint import Checkpoint, write_checkpoint

    seconds = []
    for epoch in range(1, 4):
        began = time.perf_counter()
        arrays = {"model": read_arrays(model.network.weights), "optimizer": read_arrays(model.optimizer.variables)}
        read = time.perf_counter()
        path = write_checkpoint(folder / "cost", Checkpoint(epoch, "run", arrays | {"best": arrays["model"]}, {}))
        seconds.append((read - began, time.perf_counter() - read))
    read, write = map(statistics.median, zip(*seconds, strict=True))
    return {"read": read, "write": write, "megabytes": round(path.stat().st_size / 1e6)}


def traced(options):
    """Return the time in each kind of operation over ten calls of the compiled step, as lines of a page."""
    import where_time_goes
    from colabcnn.network import devices
    from colabcnn.training.profiling import SKIPPED_CALLS, TRACED_CALLS, ProfileSteps
    from recording import Spans

    steps, calls = 1 if devices.is_cpu() else TRACED_STEPS_A_CALL, SKIPPED_CALLS + TRACED_CALLS
    split = split_of(options, images=calls * steps * 128)
    with tempfile.TemporaryDirectory() as folder:
        execution = replace(devices.auto_execution(), steps_per_call=steps)
        epoch = our_epoch(split, "auto", folder, execution=execution)
        epoch([Spans(calls=1)])
        profile = ProfileSteps(Path(folder, "trace"), lambda message: None)
        epoch([profile])
        profile.close()
        (path,) = Path(folder, "trace").rglob("*.xplane.pb")
        title = f"{TRACED_CALLS} calls of {steps} step{'s' if steps > 1 else ''} each, in batches of 128."
        return {"trace": [title, "", *where_time_goes.report(path)]}


OURS = {f"ours in {precision.removeprefix('mixed_')}": timed(precision, checkpoint=True) for precision in PRECISIONS}
STEPS = {f"{n} step{'s' if n > 1 else ''} a call": timed(steps_a_call=n) for n in STEPS_A_CALL}
STEPS[WHOLE_EPOCH] = timed(steps_a_call="all")
MEASUREMENTS = {
    **OURS,
    **STEPS,
    **{name: timed() for name in XLA_FLAGS},
    "batches of 512": timed(batch_size=512),
    "where the time goes": traced,
}


def order(device, peers):
    """Return the names of the measurements on a device, the most useful first; `peers` are those of `epoch.py`."""
    ours = sorted(OURS, key=lambda name: not name.endswith(f" {device['precision'].removeprefix('mixed_')}"))
    # `ours` is already measured at the device's default number of steps.
    steps = [name for name in STEPS if name.split()[0] != str(device["steps_a_call"])]
    buffers = () if device["cpu"] else XLA_FLAGS
    return [*ours, *peers, *steps, *buffers, "batches of 512", "where the time goes", "start-up"]


def page(rows, options):
    """Return the measurements as the lines of a Markdown page."""
    method = (
        f"{of_pairs(options)} Ours augments and keeps a history; the others do what their line names, and validate. "
        "Seconds are for 50,000 training images and for 10,000 validation images, scaled up where fewer were measured. "
        "Work that is done once a run is not timed, nor the picture, which is drawn every 30 s at most."
    )
    lines = heading("An epoch of 06_final on", "epoch", method, rows, options)
    columns = ("ours", "precision", "steps a call", "training alone", "with validation", "images/s, training")
    columns += ("of a product's speed", "of the vendor's peak", "GPU memory", "measured")
    table = [columns, ("---",) * len(columns)]
    ours = {name: rows[name] for name in rows if name in MEASUREMENTS and name != "where the time goes"}
    table += [cells_of_epoch(name, row, rows["device"]) for name, row in ours.items()]
    lines += ["", *(f"| {' | '.join(cells)} |" for cells in table), "", *sentences(rows, options)]
    others = {name: row for name, row in rows.items() if name not in ours and "trace" not in row}
    columns = ("against, above 1 ours is faster", "precision, ours and theirs", "ours, images/s", "theirs")
    return [*lines, "", *table_of_pairs(columns, others)]


def cells_of_epoch(name, row, device):
    if missing(row):
        return name, "", "", missing(row), "", "", "", "", "", ""
    training, speed = row["training"], 50_000 / row["training"]
    peaks = device["gflops"].get(f"mixed_{row['precision']}", device["gflops"].get(row["precision"]))
    of_vendor = next((VENDOR_PEAKS[part] for part in VENDOR_PEAKS if re.search(rf"\b{part}\b", device["device"])), None)
    reached = speed * device["gflop_an_image"]
    return (
        name,
        row["precision"],
        f"{row['steps_a_call']}",
        f"**{in_seconds(training)}**",
        in_seconds(training + row["validation"]),
        f"{speed:,.0f}",
        f"{100 * reached / peaks:.0f} %" if peaks else "",
        f"{100 * reached / of_vendor / 1000:.0f} %" if of_vendor and "float16" in row["precision"] else "",
        f"{row['memory']:,} MB" if row["memory"] is not None else "",
        f"{row['epochs']} x {row['images']:,} images",
    )


def in_seconds(value):
    return f"{value:,.0f} s" if value >= 100 else f"{value:.3g} s"


def sentences(rows, options):
    """Return the values without a column in the tables, as a list."""
    device = rows["device"]
    speeds = ", ".join(
        f"{speed / 1000:.3g} in {name.removeprefix('mixed_')}" for name, speed in device["gflops"].items()
    )
    lines = [
        f"- **Share of the limit:** {device['gflop_an_image']} GFLOP an image to train (counted from the layers). One "
        f"large matrix product reaches here, in TFLOP/s: {speeds}."
    ]
    first = next((row for row in rows.values() if "checkpoint" in row), None)
    if first:
        checkpoint, share = first["checkpoint"], first["validation"] / (first["training"] + first["validation"])
        lines += [
            f"- **Validation** takes {in_seconds(first['validation'])}, {100 * share:.0f} % of an epoch. Its plan "
            f"takes {first['plan']:.2g} s, counted as training; history and all else {first['rest']:.2g} s behind it.",
            f"- **A checkpoint** of {checkpoint['megabytes']} MB keeps training waiting {checkpoint['read']:.2g} s, "
            f"until it is read from the device; writing it, beside training, takes {checkpoint['write']:.2g} s.",
        ]
    memory = "; ".join(f"{name} {row['memory']:,} MB" for name, row in rows.items() if "ratio" in row and row["memory"])
    if memory:
        lines.append(f"- **GPU memory of the others**, at most: {memory}.")
    fewer = {name: row["their_images"] for name, row in rows.items() if "ratio" in row}
    fewer = "; ".join(f"{name} {images:,}" for name, images in fewer.items() if images < options.images)
    if fewer:
        lines.append(f"- **Fewer images**, since the host prepares them one by one: {fewer}.")
    if "seconds" in rows["start-up"]:
        cold, *warm = rows["start-up"]["seconds"]
        lines.append(
            f"- **Start-up**, from `run` to the end of the first step: {cold} s, then "
            f"{' and '.join(map(str, warm)) or 'not yet measured'} s in new processes."
        )
    return lines


def trace_page(rows, options):
    """Return the page of the trace, or None without a trace; the trace itself is not kept."""
    row = rows.get("where the time goes", {})
    if "trace" not in row:
        return None
    first, *lines = row["trace"]
    return [*heading("Where the time of 06_final goes on", "epoch", first, rows, options), *lines]
