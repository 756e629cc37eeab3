"""A run as tables and pictures count it: its history, its devices, and the seconds of its epochs on each of them."""

import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from colabcnn.errors import MALFORMED, Error
from colabcnn.experiments.experiment import all_images
from colabcnn.store.history import read_history
from colabcnn.store.run_folder import FLIP_AVERAGED, RunFolder
from colabcnn.store.run_list import is_shipped, runs_by_name, shipped_results
from colabcnn.store.run_record import RunRecord

# In the folder of a shipped run that shared its processor with other work: its seconds are of no use.
BESIDE_OTHER_WORK = "beside-other-work.txt"
SHARED = "shared by somebody"


@dataclass(frozen=True)
class MeasuredRun:
    """What the files of a run say.

    Args:
        run_dir: the run's folder.
        history: as `read_history` returns it.
        record: `RunRecord`.
    """

    run_dir: Path
    history: dict
    record: RunRecord

    @property
    def length(self) -> int:
        """The number of epochs that are done."""
        return len(self.history["epoch"])

    @property
    def devices(self) -> list[str]:
        """The devices that the run was trained on, in order."""
        return list(dict.fromkeys(start.device for start in self.record.starts))

    @property
    def origin(self) -> str:
        """Whose run it is: `SHARED`, "shipped" or "yours"."""
        if RunFolder(self.run_dir).is_fetched:
            return SHARED
        return "shipped" if is_shipped(self.run_dir) else "yours"

    @property
    def is_timed(self) -> bool:
        """Whether no note reports other work on its device, so that its seconds count."""
        return not (self.run_dir / BESIDE_OTHER_WORK).exists()

    def images_in_words(self) -> list[str]:
        """Return how the images differ from all of CIFAR-10's training images, validated on all of its test set."""
        record, is_synthetic = self.record, self.record.data != "cifar10"
        words = ["synthetic images"] if is_synthetic else []
        train_size, val_size = all_images(record.holdout)
        if is_synthetic or record.train_size != train_size:
            words.append(f"{record.train_size:,} training images")
        if record.holdout:
            words.append(f"validated on {record.val_size:,} training images held out")
        elif is_synthetic or record.val_size != val_size:
            words.append(f"{record.val_size:,} validation images")
        return words

    def seconds_by_device(self) -> dict[str, float]:
        """Return the median seconds of an epoch on each device.

        The first epoch of a session holds the compilation, so it counts only where a device has no other.
        """
        devices, least, later, every = {}, math.inf, {}, {}
        for start in reversed(self.record.starts):
            if start.first_epoch < least:  # A later start has trained again what an earlier one lost.
                devices[start.first_epoch], least = start.device, start.first_epoch
        device = "an unknown device"
        for epoch, seconds in zip(self.history["epoch"], self.history["seconds"], strict=True):
            device = devices.get(epoch, device)
            every.setdefault(device, []).append(seconds)
            if epoch not in devices:
                later.setdefault(device, []).append(seconds)
        return {device: statistics.median(later.get(device, values)) for device, values in every.items()}

    def flip_averaged(self) -> float | None:
        """Return what `evaluate` measured of the last epoch; None without it, or if it used other images."""
        try:
            measured = json.loads(RunFolder(self.run_dir).test_json.read_text(encoding="utf-8"))
            last, size = measured["last_epoch"], measured["test_size"]
            is_same = (last["epoch"], size, 0) == (self.length, self.record.val_size, self.record.holdout)
            return float(last[FLIP_AVERAGED]) if is_same else None
        except (OSError, *MALFORMED):
            return None


def read_measured_run(run_dir: Path) -> MeasuredRun | None:
    """Return what a run's files say, or None where its `run.json` cannot be read.

    Raises:
        Error: the run's history cannot be read, or its record is of another version's format.
    """
    history, record = read_history(run_dir / "history.csv"), RunFolder(run_dir).read_record()
    return None if record is None else MeasuredRun(run_dir, history, record)


def read_or_reason(run_dir: Path) -> MeasuredRun | str:
    """Return what a run's files contain, or the reason why they cannot be read."""
    try:
        return read_measured_run(run_dir) or "its run.json cannot be read"
    except (Error, OSError) as error:
        return str(error)


def longest(runs: Iterable[MeasuredRun | None]) -> list[MeasuredRun]:
    """Return the runs with the most epochs, in the order given: a run of 700 takes the place of one of 20."""
    known = [run for run in runs if run is not None]
    most = max((run.length for run in known), default=0)
    return [run for run in known if run.length == most]


def longest_shipped(name: str) -> MeasuredRun | None:
    """Return the longest run of an experiment that this project ships, the first seed's, or None."""
    shipped = longest(map(read_measured_run, runs_by_name([shipped_results()]).get(name, ())))
    return shipped[0] if shipped else None


def seconds_in_words(seconds: float) -> str:
    """Return seconds without decimals from 10 on, with two digits below."""
    return f"{seconds:.0f}" if seconds >= 9.95 else f"{seconds:.2g}"
