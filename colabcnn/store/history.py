"""`history.csv`: one row per epoch."""

import csv
import math
from pathlib import Path

from colabcnn.errors import Error
from colabcnn.store.files import write_atomically

COLUMNS = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")
History = dict[str, list]
"""As `empty_history` returns it."""


def empty_history() -> History:
    """Return a history without epochs: a dict from column to list, `epoch` counting from 1."""
    return {column: [] for column in COLUMNS}


def best_of(history: History) -> tuple[int, float]:
    """Return the epoch, from 1, of the highest validation accuracy, and this accuracy; the history must have epochs.

    Of equal ones it is the first; the accuracy is NaN only if all are.
    """
    values = history["val_accuracy"]
    best = max(values, key=lambda value: -math.inf if math.isnan(value) else value)
    return history["epoch"][values.index(best)], best


def newest_in_words(history: History, epochs: int) -> str:
    """Return the last epoch of `epochs` with its validation accuracy and the best so far; "" without epochs."""
    if not history["epoch"]:
        return ""
    last, value = history["epoch"][-1], history["val_accuracy"][-1]
    return f"epoch {last} of {epochs}, validation {value:.4f}, best {best_of(history)[1]:.4f}"


def write_history(path: str | Path, history: History) -> None:
    """Write all rows; a float that is read again has the same value."""
    rows = [COLUMNS, *zip(*(history[column] for column in COLUMNS), strict=True)]
    write_atomically(path, "".join(f"{','.join(map(str, row))}\n" for row in rows))


def read_history(path: str | Path) -> History:
    """Read a `history.csv` as `empty_history` describes it.

    Raises:
        Error: there is no such file, or one of its lines is not a row of the history.
    """
    history = empty_history()
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # An editor may have put a mark in front.
            for number, row in enumerate(csv.DictReader(file), start=2):
                try:
                    values = [int(row["epoch"])] + [float(row[column]) for column in COLUMNS[1:]]
                except (KeyError, TypeError, ValueError):
                    raise Error(
                        f"{path}, line {number} is not a row of {', '.join(COLUMNS)}; train the run again "
                        "with the same command, which writes the file again from the checkpoint."
                    ) from None
                for column, value in zip(COLUMNS, values, strict=True):
                    history[column].append(value)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise Error(f"{path} cannot be read ({reason}); expected the folder of a run with a history.") from None
    return history
