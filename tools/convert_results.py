"""Convert the `run.json` of runs of version 0.1.0 to this version's format: python tools/convert_results.py FOLDER ...

Each FOLDER is searched for run.json files. Only their form changes: all values, histories, test.json and pictures stay
the same. An unfinished run must first be finished by the version that started it.
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from colabcnn.errors import Error  # noqa: E402
from colabcnn.experiments.execution import Execution  # noqa: E402
from colabcnn.experiments.experiment import Experiment  # noqa: E402
from colabcnn.experiments.ingredients import Adam, Augmentation, Constant, Muon, RiseAndFall  # noqa: E402
from colabcnn.store.run_folder import RunFolder  # noqa: E402
from colabcnn.store.run_record import RunRecord, Start  # noqa: E402

EXECUTION = ("steps_per_call", "xla", "fused_batch_norm", "xla_augmentation")


def main() -> None:
    """Convert all runs in the given folders."""
    for folder in sys.argv[1:] or sys.exit(__doc__):
        for path in sorted(Path(folder).rglob("run.json")):
            old = json.loads(path.read_text(encoding="utf-8"))
            if "format" in old:
                continue
            RunFolder(path.parent).write_record(record_of(old))
            print(path)


def record_of(old: dict[str, Any]) -> RunRecord:
    """Return the record of a run as version 0.1.0 wrote it.

    Raises:
        Error: it has a field that 0.1.0 did not write.
    """
    values = {name: old[name] for name in ("seed", "data", "data_sha256", "train_size", "val_size", "holdout")}
    starts = tuple(_start_of(start) for start in old["starts"])
    experiment = _experiment_of(old["experiment"], old["epochs"])
    return RunRecord(experiment=experiment, precision=old["precision"], starts=starts, **values)


def _start_of(old):
    old = dict(old)
    execution = {name: old.pop(name) for name in EXECUTION if name in old}
    return Start(**old, execution=Execution(**execution) if execution else None)


def _experiment_of(old, epochs):
    old = {**old, "epochs": epochs}
    rate, kind = old.pop("learning_rate"), old.pop("optimizer")
    adam_rate, steps = old.pop("adam_learning_rate", None), old.pop("newton_schulz_steps", 5)
    momentum, rise = old.pop("momentum", 0.95), old.pop("warmup", 0.0)
    linear = old.pop("schedule", "constant") == "linear"
    if old["augmentation"] is not None:
        old["augmentation"] = Augmentation(**old["augmentation"])
    optimizer = Adam(rate) if kind == "adam" else Muon(rate, adam_rate or rate, momentum, steps)
    try:
        return Experiment(**old, optimizer=optimizer, schedule=RiseAndFall(rise) if linear else Constant())
    except TypeError as error:
        raise Error(f"{old['name']} is not an experiment of version 0.1.0: {error}.") from None


if __name__ == "__main__":
    main()
