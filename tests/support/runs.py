"""Shared by tests on runs: the installed backends, and how two runs differ."""

import importlib.util
from dataclasses import replace

import pytest

from colabcnn.store.checkpoint import newest_checkpoint
from colabcnn.store.history import COLUMNS, empty_history, read_history
from colabcnn.store.run_record import RunRecord, Start

BACKENDS = [
    pytest.param(
        backend,
        marks=pytest.mark.skipif(importlib.util.find_spec(backend) is None, reason=f"{backend} is not installed"),
    )
    for backend in ("tensorflow", "jax")
]


def make_record(experiment, *, device="CPU", **changes):
    """Return the `RunRecord` of a run on all of CIFAR-10, validated on the test set, with these changes."""
    start = Start(time="2026-01-01T00:00:00+00:00", first_epoch=1, device=device, versions={})
    record = RunRecord(experiment, 0, "cifar10", "0" * 64, 50_000, 10_000, 0, "float32", (start,))
    return replace(record, **changes)


def history_of(*accuracies):
    """Return a history with these validation accuracies, one an epoch."""
    history = empty_history()
    for epoch, accuracy in enumerate(accuracies, start=1):
        for column in COLUMNS:
            history[column].append({"epoch": epoch, "val_accuracy": accuracy}.get(column, 1 / (3 * epoch)))
    return history


def differences(run_dir, other_dir):
    """Name what differs between two runs: weights, optimizer, best weights, callbacks, history without the seconds."""
    (one, _), (other, _) = (newest_checkpoint(folder / "checkpoints") for folder in (run_dir, other_dir))
    found = [] if one.epoch == other.epoch else ["epoch"]
    found += [
        f"{group} {index}"
        for group in one.arrays
        for index, (a, b) in enumerate(zip(one.arrays[group], other.arrays[group], strict=True))
        if a.dtype != b.dtype or a.tobytes() != b.tobytes()
    ]
    found += ["callbacks"] if one.metadata["callbacks"] != other.metadata["callbacks"] else []
    histories = [read_history(folder / "history.csv") for folder in (run_dir, other_dir)]
    return found + [c for c in COLUMNS if c != "seconds" and histories[0][c] != histories[1][c]]
