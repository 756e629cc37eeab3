"""What tests of a delivery share: checkpoints of numbers, a clock, and waiting for what Drive's process answers."""

import time

import numpy as np

from colabcnn.drive.delivery import Delivery
from colabcnn.drive.folder import DriveFolder
from colabcnn.store.checkpoint import Checkpoint, newest_checkpoint, write_checkpoint


def save(folder, epoch):
    """Write the checkpoint of an epoch, whose arrays tell it, and a history; return the checkpoint's name."""
    folder.mkdir(exist_ok=True)
    arrays = {"model": [np.full((64, 64), epoch, np.float32)]}
    name = write_checkpoint(
        folder / "checkpoints", Checkpoint(epoch, "fit", arrays, {"epochs": list(range(epoch))})
    ).name
    (folder / "history.csv").write_text("".join(f"{number}\n" for number in range(1, epoch + 1)))
    return name


def restored(folder):
    """Return the epoch of the checkpoint that a run would go on from, whole and of one epoch; 0 for none."""
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


class Told(list):
    """What the person was told."""

    def __call__(self, message):
        self.append(message)


def answered(delivery, seconds=30):
    """Wait until nothing is on its way."""
    deadline = time.monotonic() + seconds
    while delivery._busy():
        delivery._poll_response(0.05)
        assert time.monotonic() < deadline


def fetch(local, drive, have=0):
    """Fetch as a run does that has seen that it is the right one; return what was told."""
    told = DriveFolder(local, drive).fetch(have)
    Delivery(local, drive, minutes=0, info=print).take(told["fetched"])
    return told


def tick(delivery):
    delivery.tick()
    answered(delivery)


def deliver(delivery, epoch):
    """Save the checkpoint of an epoch and wait for what comes of its delivery; return the checkpoint's name."""
    name = save(delivery.local, epoch)
    tick(delivery)
    return name
