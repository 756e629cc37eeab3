"""The state of Keras's built-in callbacks, kept across a resume; Keras itself resets it when training begins."""

import os
import re
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from colabcnn.encoding import Encoder, decode
from colabcnn.errors import MALFORMED, Error
from colabcnn.store.checkpoint import Checkpoint

_STATES = {
    keras.callbacks.EarlyStopping: ("wait", "stopped_epoch", "best", "best_epoch", "best_weights"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "cooldown_counter", "best"),
    keras.callbacks.ModelCheckpoint: ("best", "_batches_seen_since_last_saving", "_last_batch_seen"),
    keras.callbacks.SwapEMAWeights: ("_ema_weights_in_model",),
    keras.callbacks.History: ("epoch", "history"),
    keras.callbacks.TensorBoard: ("_global_train_batch", "_global_test_batch"),
}


def save_states(
    callbacks: Iterable[keras.callbacks.Callback], info: Callable[[str], None]
) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """Return the states of built-in callbacks, after an epoch.

    Args:
        callbacks: `keras.callbacks.Callback`s; those of other classes are skipped.
        info: callable that shows a message; called for each value that is not in the states, with the reason.

    Returns:
        `(states, arrays)`: JSON types, one dict per built-in callback in order; the arrays that they refer to.
    """
    states, encoder = [], Encoder()
    for callback in callbacks:
        if kind := _builtin_class(callback):
            fields = {field: getattr(callback, field) for field in _STATES[kind] if hasattr(callback, field)}
            values = {field: encoder.encode(value, f"{kind.__name__}.{field}") for field, value in fields.items()}
            states.append({"class": kind.__name__, "monitor": _monitor_of(callback), "values": values})
    for name, kind in encoder.left_out.items():
        info(not_restored(name, f"a checkpoint holds no {kind}"))
    return states, encoder.arrays


def restore_states(
    callbacks: Iterable[keras.callbacks.Callback], checkpoint: Checkpoint, info: Callable[[str], None], continues: bool
) -> None:
    """Restore the states of built-in callbacks, each to the next callback of its class.

    Args:
        callbacks: as for `save_states`; after their `on_train_begin`, which resets them.
        checkpoint: with what `save_states` returned in its metadata and its arrays.
        info: callable that shows a message; called for each built-in callback without a saved state.
        continues: whether any epoch is left to train.

    Raises:
        Error: the states are not in `save_states`' form; a checkpoint may come from someone else.
    """
    try:
        unused, arrays = list(checkpoint.metadata["callbacks"]), checkpoint.arrays.get("callbacks", [])
        for callback in callbacks:
            if (kind := _builtin_class(callback)) is None:
                continue
            monitor = _monitor_of(callback)
            owner = kind.__name__, monitor
            state = next((state for state in unused if (state["class"], state["monitor"]) == owner), None)
            if state is None:
                of_monitor = f" of {monitor}" if monitor else ""
                info(f"{kind.__name__}{of_monitor} was not among the callbacks before; it keeps its initial state.")
                continue
            unused.remove(state)
            # Only these fields: a checkpoint must not set ModelCheckpoint's path, for example.
            values = {
                field: decode(state["values"][field], arrays) for field in _STATES[kind] if field in state["values"]
            }
            if isinstance(callback, keras.callbacks.ModelCheckpoint):
                _leave_out_lost_file(callback, values, info)
            for field, value in values.items():
                setattr(callback, field, value)
            if continues and isinstance(callback, keras.callbacks.EarlyStopping):
                callback.stopped_epoch = 0  # It ended the shorter run, which is extended now.
    except MALFORMED:
        raise Error(
            "the checkpoint's callbacks are not what this library saves; it is damaged or altered. Use another folder."
        ) from None


def early_stopping_ended(callbacks: Iterable[keras.callbacks.Callback]) -> bool:
    """Return whether Keras's EarlyStopping, not another callback, has ended the training."""
    return any(isinstance(c, keras.callbacks.EarlyStopping) and c.stopped_epoch > 0 for c in callbacks)


def not_restored(name: str, reason: str) -> str:
    """Return the message that a resume will not restore a thing."""
    return f"{name} is not restored by a resume: {reason}."


def report_forgotten(callbacks: Iterable[keras.callbacks.Callback], info: Callable[[str], None]) -> None:
    """Report each built-in callback whose own file loses what it had before a resume."""
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.CSVLogger) and not callback.append:
            info(f"CSVLogger empties {callback.filename} at each start, also at a resume; append=True keeps it.")


def _leave_out_lost_file(callback, values, info):
    """Leave out the best value if the one file with the best model is not on this machine: it would never be saved."""
    if not callback.save_best_only or "{" in callback.filepath or os.path.exists(callback.filepath):
        return
    if values.get("best") != callback.best:  # Otherwise nothing was saved yet.
        del values["best"]
        info(
            f"{callback.filepath}, which ModelCheckpoint saved before, is missing here: now it saves the best of the "
            "coming epochs. A path on Drive would keep the file."
        )


def _monitor_of(callback):
    """Return the name of the log that a callback looks at, or None; without the number that Keras adds to a name."""
    monitor = getattr(callback, "monitor", None)
    return re.sub(r"_\d+$", "", monitor) if isinstance(monitor, str) else None


def _builtin_class(callback):
    return next((kind for kind in _STATES if isinstance(callback, kind)), None)
