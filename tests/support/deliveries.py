"""Shared by the tests of a delivery: small checkpoints, a clock, and functions that wait for the delivery process."""

import time

import numpy as np

from colabcnn.drive.delivery import Delivery
from colabcnn.drive.folder import DriveFolder
from colabcnn.store.checkpoint import Checkpoint, newest_checkpoint, write_checkpoint


def save(folder, epoch):
    """Write a checkpoint whose arrays hold its epoch, and a history; return the checkpoint's name."""
    folder.mkdir(exist_ok=True)
    arrays = {"model": [np.full((64, 64), epoch, np.float32)]}
    name = write_checkpoint(
        folder / "checkpoints", Checkpoint(epoch, "fit", arrays, {"epochs": list(range(epoch))})
    ).name
    (folder / "history.csv").write_text("".join(f"{number}\n" for number in range(1, epoch + 1)))
    return name


def restored_epoch(folder):
    """Return the epoch of the checkpoint that a run would resume, or 0; check that all its parts are of that epoch."""
    checkpoint, _ = newest_checkpoint(folder / "checkpoints")
    if checkpoint is None:
        return 0
    assert (checkpoint.arrays["model"][0] == checkpoint.epoch).all()
    assert checkpoint.metadata["epochs"] == list(range(checkpoint.epoch))
    return checkpoint.epoch


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def wait_for_response(delivery, seconds=30):
    """Wait until no request is pending."""
    deadline = time.monotonic() + seconds
    while delivery._process.busy:
        delivery._poll_response(0.05)
        assert time.monotonic() < deadline


def wait_for_partial(mount, seconds=30):
    """Wait until a checkpoint is being written to `run` on the mount."""
    deadline = time.monotonic() + seconds
    while not list(mount.files.glob("run/checkpoints/.*.partial")):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def fetch(local, drive, have=0):
    """Fetch as a run does after it has checked that Drive holds the same run; return the result."""
    result = DriveFolder(local, drive).fetch(have)
    Delivery(local, drive, minutes=0, info=print).keep_fetched(result["fetched"])
    return result


def tick(delivery):
    delivery.tick()
    wait_for_response(delivery)


def deliver(delivery, epoch):
    """Save the checkpoint of an epoch and wait until its delivery ends; return the checkpoint's name."""
    name = save(delivery.local, epoch)
    tick(delivery)
    return name
