"""What of a run's curves is shown: a metric, its ranges, and the article's four pictures."""

from dataclasses import dataclass

from colabcnn.store.history import History, best_of

METRICS = ("loss", "accuracy")
# So many epochs on either side of the best one.
BEST_SPAN = 25


@dataclass(frozen=True)
class View:
    """What is shown of the curves.

    Args:
        metric: "loss" or "accuracy".
        epochs: `(first, last)`, either of them None for the end of the data.
        value_range: `(low, high)` of the vertical axis, likewise.
        line: value of a horizontal guide line, or None.
        training: whether the training curves are drawn.
    """

    metric: str = "accuracy"
    epochs: tuple = (None, None)
    value_range: tuple = (None, None)
    line: float | None = None
    training: bool = True


def article_views(histories: dict[str, History]) -> dict[str, View]:
    """Return the four pictures in which the article shows its result, as a dict from name to `View`.

    Args:
        histories: a dict from a run's label to its history; the best epoch is the best of all of them.

    Returns:
        "loss" and "accuracy" over the whole run, "enlarged" and "around the best" with a line at 0.9 near it.
    """
    views = {"loss": View(metric="loss"), "accuracy": View()}
    done = [history for history in histories.values() if history["epoch"]]
    if not done:
        return views | {"enlarged": View(), "around the best": View(line=0.9)}
    top = max(done, key=lambda history: max(history["val_accuracy"]))
    (best, value), last = best_of(top), top["epoch"][-1]
    # The line at 0.9 belongs into the picture only where the run comes near it.
    highest = min(1.0, value + 0.02)
    highest, line = (max(0.91, highest), 0.9) if value > 0.85 else (highest, None)
    return views | {
        "enlarged": View(value_range=(max(0.0, value - 0.15), min(1.0, value + 0.1))),
        "around the best": View(
            epochs=(max(1, best - BEST_SPAN), max(2, min(last, best + BEST_SPAN))),
            value_range=(max(0.0, value - 0.03), highest),
            line=line,
        ),
    }


def best_in_words(history: History) -> str:
    """Return the best epoch's validation accuracy and the epoch, such as "best 0.9010, epoch 326"."""
    if not history["epoch"]:
        return "no epoch yet"
    best, value = best_of(history)
    return f"best {value:.4f}, epoch {best}"
