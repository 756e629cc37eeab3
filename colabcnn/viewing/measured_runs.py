"""A run as tables and pictures count it: its history, its devices, and the seconds of its epochs on each of them."""

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from colabcnn.experiments.experiment import Experiment
from colabcnn.store.history import read_history
from colabcnn.store.run_folder import FLIP_AVERAGED

_KEYS = ("starts", "epochs", "precision", "seed", "data", "holdout", "val_size")
_TEST_SET = {"data": "cifar10", "holdout": 0, "val_size": 10_000}


@dataclass(frozen=True)
class RunRecord:
    """What the files of a run say.

    Args:
        run_dir: the run's folder.
        history: as `read_history` returns it.
        info: what `run.json` holds; `starts`, `epochs`, `precision`, `seed`, `data`, `holdout` and `val_size` at least.
    """

    run_dir: Path
    history: dict
    info: dict

    @property
    def length(self) -> int:
        """The number of epochs that are done."""
        return len(self.history["epoch"])

    @property
    def devices(self) -> list[str]:
        """The devices that the run was trained on, in order."""
        return list(dict.fromkeys(start["device"] for start in self.info["starts"]))

    @property
    def on_test_set(self) -> bool:
        """Whether the run was validated on all of CIFAR-10's test set."""
        return {key: self.info[key] for key in _TEST_SET} == _TEST_SET

    def is_complete(self, experiment: Experiment | None = None) -> bool:
        """Return whether the run has all its epochs, on all of CIFAR-10, with the settings of `experiment` if given."""
        is_whole = self.on_test_set and self.info.get("train_size") == 50_000
        is_same = experiment is None or self.info.get("experiment") == experiment.settings()
        return is_whole and is_same and self.length == self.info["epochs"]

    def seconds_by_device(self) -> dict[str, float]:
        """Return the median seconds of an epoch on each device.

        The first epoch of a session holds the compilation, so it counts only where a device has no other.
        """
        starts, later, every = self.info["starts"], {}, {}
        first_epochs = {start["first_epoch"] for start in starts}
        for epoch, seconds in zip(self.history["epoch"], self.history["seconds"], strict=True):
            # A later start has trained again what an earlier one lost.
            before = [start["device"] for start in starts if start["first_epoch"] <= epoch]
            device = before[-1] if before else "an unknown device"
            every.setdefault(device, []).append(seconds)
            if epoch not in first_epochs:
                later.setdefault(device, []).append(seconds)
        return {device: statistics.median(later.get(device, values)) for device, values in every.items()}

    def flip_averaged(self) -> float | None:
        """Return what `evaluate` measured of the last epoch; None without it, or if it used other images."""
        try:
            measured = json.loads((self.run_dir / "test.json").read_text(encoding="utf-8"))
            last, size = measured["last_epoch"], measured["test_size"]
            is_same = (last["epoch"], size, 0) == (self.length, self.info["val_size"], self.info["holdout"])
            return float(last[FLIP_AVERAGED]) if is_same else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def read_record(run_dir: Path) -> RunRecord | None:
    """Return a run's record, or None where its `run.json` cannot be read.

    Raises:
        Error: the run's history cannot be read.
    """
    history = read_history(run_dir / "history.csv")
    try:
        info = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
        return RunRecord(run_dir, history, info) if all(key in info for key in _KEYS) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # As where Drive has copied one of the two files only.


def longest(records: Iterable[RunRecord | None]) -> list[RunRecord]:
    """Return the records with the most epochs, in the order given: a run of 700 takes the place of one of 20."""
    known = [record for record in records if record is not None]
    most = max((record.length for record in known), default=0)
    return [record for record in known if record.length == most]


def seconds_in_words(seconds: float) -> str:
    """Return seconds without decimals from 10 on, with two digits below."""
    return f"{seconds:.0f}" if seconds >= 9.95 else f"{seconds:.2g}"
