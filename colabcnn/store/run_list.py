"""Folders of runs, expanded into the runs in them, each under a short name of its own."""

import os
import re
from pathlib import Path

from colabcnn.errors import Error
from colabcnn.viewing.curves import run_label

_SET_ASIDE = re.compile(r"set-aside-\d+")


def list_runs(*run_dirs):
    """Find the runs in folders and name each by the shortest end of its path that tells it from the others.

    Args:
        run_dirs: folders of runs, each with a `history.csv`, and folders with runs at any depth below them. What lies
            in `checkpoints`, in a hidden folder, or in a `set-aside-<n>` that was not itself asked for, is left out.

    Returns:
        A dict from label, such as "06_final/seed-0", to the run's folder, a `pathlib.Path`: in the order of the
        arguments, and within one by name, `seed-2` before `seed-10`. A run that was found twice is there once.

    Raises:
        Error: no folder was given, one is not there, or one holds no run.
    """
    if not run_dirs:
        raise Error("there is no run to show; train one first, or give the folder of a run or of runs.")
    found = {}
    for run_dir in map(Path, run_dirs):
        runs = _runs_in(run_dir)
        if not runs:
            raise Error(
                f"{run_dir} holds no run; expected a history.csv in it or in a folder below it, which a run writes "
                "when it starts."
            )
        for run in runs:
            found.setdefault(run.resolve(), run)
    return {run_label(run, found): run for run in found.values()}


def _runs_in(folder):
    if not os.path.isdir(folder):
        kind = "is a file" if os.path.exists(folder) else "is not there"
        raise Error(
            f"{folder} {kind}; expected the folder of a run or of runs. Give the folder that holds history.csv."
        )
    runs = []
    for path, subfolders, files in os.walk(folder):
        if "history.csv" in files:
            runs.append(Path(path))
        subfolders[:] = [name for name in subfolders if not _is_passed_over(name)]
    return sorted(runs, key=_by_name_and_number)


def _is_passed_over(name):
    return name == "checkpoints" or name.startswith(".") or _SET_ASIDE.fullmatch(name) is not None


def _by_name_and_number(path):
    """Return a key that puts a folder before what is in it and compares numbers in names as numbers."""
    pieces = (re.split(r"(\d+)", part) for part in path.parts)
    return [[int(piece) if index % 2 else piece for index, piece in enumerate(part)] for part in pieces]
