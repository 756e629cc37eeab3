"""Find the runs in folders, and give each a short and unique name."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from colabcnn.errors import Error
from colabcnn.store.checkpoint_files import checkpoint_files
from colabcnn.store.files import check_folder, expand
from colabcnn.store.run_folder import RunFolder

_MOVED_ASIDE = re.compile(r"moved-aside-\d+")


def list_runs(*run_dirs: str | Path) -> dict[str, Path]:
    """Find the runs in folders and name each by the shortest unique end of its path.

    Args:
        run_dirs: folders of runs, each with a `history.csv`, and folders with runs at any depth below them. Hidden
            folders, `checkpoints` and `moved-aside-<n>` are skipped, unless they are given here themselves.

    Returns:
        A dict from label, such as "06_final/seed-0", to the run's folder, a `pathlib.Path`: in the order of the
        arguments, and within one by name, `seed-2` before `seed-10`. Each run is in it once.

    Raises:
        Error: no folder was given, one does not exist, or one holds no run.
    """
    if not run_dirs:
        raise Error("there is no run to show; train one first, or give the folder of a run or of runs.")
    found = {}
    for run_dir in map(expand, run_dirs):
        runs = runs_in(run_dir)
        if not runs:
            raise Error(
                f"{run_dir} holds no run; expected a history.csv in it or in a folder below it, which a run writes "
                "when it starts."
            )
        for run in runs:
            found.setdefault(run.resolve(), run)
    return dict(zip(run_labels(found.values()), found.values(), strict=True))


def runs_in(folder: str | Path) -> list[Path]:
    """Return the folders of runs in a folder, at any depth, as `list_runs` finds them; empty if there is none.

    Raises:
        Error: the folder does not exist, or is a file.
    """
    check_folder(folder, "the folder of a run or of runs. Give the folder that holds history.csv")
    runs, seen = [], set()
    for path, subfolders, files in os.walk(folder, followlinks=True):  # Drive shows a shortcut as a link.
        if os.path.realpath(path) in seen:  # Links may lead back to where they lie.
            subfolders.clear()
            continue
        seen.add(os.path.realpath(path))
        if "history.csv" in files:
            runs.append(Path(path))
        subfolders[:] = [name for name in subfolders if not _is_skipped(name)]
    return sorted(runs, key=_by_name_and_number)


def _is_skipped(name):
    return name == "checkpoints" or name.startswith(".") or _MOVED_ASIDE.fullmatch(name) is not None


def _by_name_and_number(path):
    """Return a key that puts a folder before its subfolders and compares numbers in names as numbers."""
    pieces = (re.split(r"(\d+)", part) for part in path.parts)
    return [[int(piece) if index % 2 else piece for index, piece in enumerate(part)] for part in pieces]


def run_labels(run_dirs: Iterable[str | Path]) -> list[str]:
    """Return the shortest unique end of each run's path; for a seed's folder it includes the parent's name."""
    paths = [expand(run_dir).resolve().parts for run_dir in run_dirs]
    ends = Counter(path[-count:] for path in set(paths) for count in range(1, len(path)))
    labels = []
    for path in paths:
        shortest = 2 if path[-1].startswith("seed-") else 1
        counts = (count for count in range(shortest, len(path)) if ends[path[-count:]] == 1)
        labels.append(str(Path(*path[-next(counts, len(path)) :])))
    return labels


def find_runs(*folders: str | Path | None, name: str | None = None, trained: bool = False) -> list[Path]:
    """Return the run folders in folders of `<name>/seed-<n>/`, and those that this project ships.

    Args:
        folders: as for `summarize`; the shipped runs come last.
        name: of one experiment; None takes all.
        trained: leave out runs without weights, which can be shown but cannot predict.

    Returns:
        A list of `pathlib.Path`, for `explore`, `export_html` and the like; empty if there is none.

    Raises:
        Error: a folder cannot be read.
    """
    runs = runs_by_name([*folders, shipped_results()])
    found = [run_dir for known in runs if name in (None, known) for run_dir in runs[known]]
    found = filter(_has_weights, found) if trained else found
    return sorted(found, key=lambda run_dir: (is_shipped(run_dir), RunFolder(run_dir).is_fetched))


def _has_weights(run_dir):
    return bool(checkpoint_files(run_dir / "checkpoints"))


def shipped_results() -> Path:
    """Return the folder of the project's measured runs: in the package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return package / "results" if (package / "results").is_dir() else package.parent / "results"


def shipped_run(run_dir: str | Path) -> Path:
    """Return a run's folder; for an experiment's name, where no such path exists, the shipped run that has weights.

    Args:
        run_dir: a path, or a name such as "08_in_minutes".
    """
    path = expand(run_dir)
    if os.path.lexists(path):
        return path
    runs = runs_by_name([shipped_results()]).get(str(run_dir), ())
    return next(filter(_has_weights, runs), path)


def runs_by_name(folders: Iterable[str | Path | None]) -> dict[str, list[Path]]:
    """Return a dict from each name to its run folders, by name and seed, in folders of `<name>/seed-<n>/`."""
    found = {}
    for folder in filter(None, folders):
        for path in found_in(expand(folder), "*/seed-*/history.csv"):
            name, seed = path.parts[-3:-1]
            fetched = RunFolder(path.parent).is_fetched  # These come after one's own runs.
            found.setdefault((fetched, name, len(seed), seed, is_shipped(path)), path.parent)
    runs = {}
    for key in sorted(found):
        runs.setdefault(key[1], []).append(found[key])
    return runs


def found_in(folder: Path, pattern: str) -> list[Path]:
    """Return the paths of a pattern in a folder, none if it is missing.

    Raises:
        Error: the folder cannot be read.
    """
    try:
        return sorted(folder.glob(pattern))
    except OSError as error:  # Before Python 3.13, of a mount that is dead.
        raise Error(f"{folder} cannot be read ({error.strerror}); mount it again, or leave it out.") from None


def is_shipped(path: Path) -> bool:
    """Return whether a path is in the folder of the project's measured runs."""
    return shipped_results().resolve() in path.resolve().parents
