"""The state of Keras's built-in callbacks, kept across a resume; Keras itself resets it when training begins."""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from colabcnn.encoding import Encoder, decode
from colabcnn.errors import Error

_STATES = {
    keras.callbacks.EarlyStopping: ("wait", "stopped_epoch", "best", "best_epoch", "best_weights"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "cooldown_counter", "best"),
    keras.callbacks.ModelCheckpoint: ("best", "_batches_seen_since_last_saving", "_last_batch_seen"),
    keras.callbacks.SwapEMAWeights: ("_ema_weights_in_model",),
    keras.callbacks.History: ("epoch", "history"),
    keras.callbacks.TensorBoard: ("_global_train_batch", "_global_test_batch"),
}


def save_states(
    callbacks: Iterable[keras.callbacks.Callback],
) -> tuple[list[dict[str, Any]], list[np.ndarray], dict[str, str]]:
    """Return the states of built-in callbacks, after an epoch.

    Args:
        callbacks: `keras.callbacks.Callback`s; those of other classes are skipped.

    Returns:
        `(states, arrays, left_out)`: JSON types, one dict per built-in callback in order; the arrays that they refer
        to; and, by name, why a value is not in them.
    """
    states, encoder = [], Encoder()
    for callback in callbacks:
        if kind := _builtin_class(callback):
            fields = {field: getattr(callback, field) for field in _STATES[kind] if hasattr(callback, field)}
            values = {field: encoder.encode(value, f"{kind.__name__}.{field}") for field, value in fields.items()}
            states.append({"class": kind.__name__, "values": values})
    left_out = {name: f"a checkpoint holds no {kind}" for name, kind in encoder.left_out.items()}
    return states, encoder.arrays, left_out


def restore_states(
    callbacks: Iterable[keras.callbacks.Callback],
    states: list[dict[str, Any]],
    arrays: list[np.ndarray],
    continues: bool,
) -> list[str]:
    """Restore the states of built-in callbacks, each to the next callback of its class.

    Args:
        callbacks: as for `save_states`; after their `on_train_begin`, which resets them.
        states: as `save_states` returned.
        arrays: as `save_states` returned.
        continues: whether any epoch is left to train.

    Returns:
        The class names of built-in callbacks without a saved state: they keep their initial state.

    Raises:
        Error: the states are not in `save_states`' form; a checkpoint may come from someone else.
    """
    try:
        return _restore_states(callbacks, states, arrays, continues)
    except (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError):
        raise Error("the checkpoint's callbacks are not what this library saves; it is damaged or altered.") from None


def _restore_states(callbacks, states, arrays, continues):
    unused, without_state = list(states), []
    for callback in callbacks:
        if kind := _builtin_class(callback):
            state = next((state for state in unused if state["class"] == kind.__name__), None)
            if state is None:
                without_state.append(kind.__name__)
                continue
            unused.remove(state)
            # Only these fields: a checkpoint must not set ModelCheckpoint's path, for example.
            for field in _STATES[kind]:
                if field in state["values"]:
                    setattr(callback, field, decode(state["values"][field], arrays))
            if continues and kind is keras.callbacks.EarlyStopping:
                callback.stopped_epoch = 0  # It ended the shorter run, which is extended now.
    return without_state


def early_stopping_ended(callbacks: Iterable[keras.callbacks.Callback]) -> bool:
    """Return whether Keras's EarlyStopping, not another callback, has ended the training."""
    return any(isinstance(c, keras.callbacks.EarlyStopping) and c.stopped_epoch > 0 for c in callbacks)


class NotRestored:
    """Report once each thing that a resume will not restore.

    Args:
        info: callable that shows a message.
    """

    def __init__(self, info: Callable[[str], None]):
        self._info = info
        self._reported: set[str] = set()

    def report(self, reasons: dict[str, str]) -> None:
        """Report the reasons, by the thing's name, that were not reported before."""
        for name, reason in reasons.items():
            if name not in self._reported:
                self._info(f"{name} is not restored by a resume: {reason}.")
        self._reported |= reasons.keys()


def forgotten_by(callbacks: Iterable[keras.callbacks.Callback]) -> list[str]:
    """Return one sentence for each built-in callback whose own file loses what it had before a resume."""
    starts_again = [c for c in callbacks if isinstance(c, keras.callbacks.CSVLogger) and not c.append]
    return [
        f"CSVLogger empties {c.filename} at each start, also at a resume; append=True keeps it." for c in starts_again
    ]


def _builtin_class(callback):
    return next((kind for kind in _STATES if isinstance(callback, kind)), None)
