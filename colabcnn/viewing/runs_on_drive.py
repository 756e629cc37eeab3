"""The runs in a folder, such as the one on Google Drive, and the notebook that continues each."""

import os
import re
from pathlib import Path

from colabcnn import colab
from colabcnn.errors import Error
from colabcnn.experiments.catalog import EXPERIMENTS
from colabcnn.experiments.experiment import all_images
from colabcnn.experiments.settings import flatten_settings
from colabcnn.store.files import expand
from colabcnn.store.run_folder import RunFolder
from colabcnn.store.run_list import runs_by_name
from colabcnn.store.run_record import RunRecord
from colabcnn.viewing.measured_runs import SHARED, read_or_reason
from colabcnn.viewing.table import Table, as_table

COLUMNS = ("run", "seed", "epochs done", "epochs left", "last validation accuracy", "notebook", "parameters")
START_HERE = "start_here_"


def runs_on_drive(folder: str | Path | None) -> Table:
    """Return the runs in a folder as a table: the epochs done and left, and the notebook that continues each.

    Args:
        folder: of `<name>/seed-<n>/`, such as "/content/drive/MyDrive/colabcnn"; it need not be on Drive.

    Returns:
        A `str`, shown as a table by a notebook, runs with epochs left first. `parameters` are those that the run needs
        in that notebook, and the settings of a variant. If there is no run or the folder cannot be read, one sentence
        with the reason. What a folder holds raises no error: a run that cannot be read has a row with the reason.
    """
    if not folder:
        return Table("DRIVE_FOLDER is empty: no run is kept beyond this session.")
    try:
        path = expand(folder)
        if colab.DRIVE_MOUNT in path.absolute().parents and colab.mounted_drive() is None:
            return Table("Google Drive is not mounted. In Colab, run the setup cell again and allow the access.")
        os.listdir(path)  # Unlike `glob`, this raises an error if the folder cannot be read.
        runs = runs_by_name([path])
    except FileNotFoundError:
        runs = {}
    except OSError as error:
        return Table(f"{folder} cannot be read ({error.strerror}).")
    except Error as error:
        return Table(str(error))
    rows = sorted((_row(run_dir) for run_dirs in runs.values() for run_dir in run_dirs), key=lambda row: row[0])
    if not rows:
        return Table(f"There is no run in {path} yet.")
    return as_table(COLUMNS, [cells for _, cells in rows])


def _row(run_dir):
    """Return `(rank, cells)`: 0 for a run with epochs left, 1 for a finished one, 2 for any other."""
    name, seed = run_dir.parts[-2], run_dir.parts[-1].removeprefix("seed-")
    run = read_or_reason(run_dir)
    if isinstance(run, str):
        return 2, (f"`{name}`", seed, "", "", "", "", run)
    left = max(0, run.record.experiment.epochs - run.length)
    last = f"{run.history['val_accuracy'][-1]:.4f}" if run.length else ""
    cells = (f"`{name}`", seed, str(run.length), str(left), last)
    if RunFolder(run_dir).is_fetched:
        return 2, (*cells, "10_compare_runs", SHARED)
    return (0 if left else 1), (*cells, notebook_of(run.record.experiment.name), form_of(run.record))


def notebook_of(name: str) -> str:
    """Return the name of the notebook that trains the experiment of this name; a variant is in `11_your_own`."""
    return "00_start_here" if name.startswith(START_HERE) else name if name in EXPERIMENTS else "11_your_own"


def form_of(record: RunRecord) -> str:
    """Return the parameters of a run as a notebook's form names them, and the settings of a variant.

    The sizes are in it only if not all images are used, or for `00_start_here`, whose form has other ones.
    """
    short = re.fullmatch(START_HERE + r"(.+)_\d+", record.experiment.name)
    values = {"EXPERIMENT": short[1]} if short else {}
    values |= {"SEED": record.seed, "EPOCHS": record.experiment.epochs}
    values |= {} if record.data == "cifar10" else {"DATA": record.data}
    sizes, complete = (record.train_size, record.val_size), all_images(record.holdout)
    for name, size, all_of_them in zip(("TRAIN_SIZE", "VAL_SIZE"), sizes, complete, strict=True):
        values |= {name: size} if short or size != all_of_them else {}
    values |= {"HOLDOUT": record.holdout} if record.holdout else {}
    form = _in_words(values)
    return form if short or record.experiment.name in EXPERIMENTS else f"{form}; {_variant(record.experiment)}"


def _variant(experiment):
    """Return the known experiment with the most equal settings, and in words which ones differ from it."""
    own, changes = flatten_settings(experiment.settings()), {}
    for name in ("06_final", *EXPERIMENTS):  # The first of several.
        base = flatten_settings(EXPERIMENTS[name].settings())
        differ = {key: value for key, value in own.items() if key not in base or value != base[key]}
        changes[name] = {key: value for key, value in differ.items() if key not in ("name", "epochs")}
    nearest = min(changes, key=lambda name: len(changes[name]))
    return f"{nearest} with {_in_words(changes[nearest])}" if changes[nearest] else f"the settings of {nearest}"


def _in_words(values):
    return ", ".join(f"{name} = {value}" for name, value in values.items())
