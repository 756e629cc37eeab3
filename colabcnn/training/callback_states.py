"""The state of Keras's built-in callbacks, kept across a resume; Keras itself resets it when training begins."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from colabcnn.errors import Error
from colabcnn.network.variables import as_arrays

_STATES = {
    keras.callbacks.EarlyStopping: ("wait", "stopped_epoch", "best", "best_epoch", "best_weights"),
    keras.callbacks.ReduceLROnPlateau: ("wait", "cooldown_counter", "best"),
    keras.callbacks.ModelCheckpoint: ("best", "_batches_seen_since_last_saving", "_last_batch_seen"),
    keras.callbacks.SwapEMAWeights: ("_ema_weights_in_model",),
    keras.callbacks.History: ("epoch", "history"),
}


def save_states(callbacks: Iterable[keras.callbacks.Callback]) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """Return the states of built-in callbacks, after an epoch.

    Args:
        callbacks: `keras.callbacks.Callback`s; those of other classes are skipped.

    Returns:
        `(states, arrays)`: JSON types, one dict per built-in callback in order, and the arrays that they refer to.
    """
    states, arrays = [], []
    for callback in callbacks:
        if kind := _builtin_class(callback):
            values = {field: _encode(getattr(callback, field), arrays) for field in _STATES[kind]}
            states.append({"class": kind.__name__, "values": values})
    return states, arrays


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
    except (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError):
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
                setattr(callback, field, _decode(state["values"][field], arrays))
            if continues and kind is keras.callbacks.EarlyStopping:
                callback.stopped_epoch = 0  # It ended the shorter run, which is extended now.
    return without_state


def early_stopping_ended(callbacks: Iterable[keras.callbacks.Callback]) -> bool:
    """Return whether Keras's EarlyStopping, not another callback, has ended the training."""
    return any(isinstance(c, keras.callbacks.EarlyStopping) and c.stopped_epoch > 0 for c in callbacks)


def _builtin_class(callback):
    return next((kind for kind in _STATES if isinstance(callback, kind)), None)


def _encode(value, arrays):
    """Return JSON types; an array becomes its index in `arrays`, a float that is not finite becomes a string."""
    if isinstance(value, dict):
        return {"dict": {key: _encode(member, arrays) for key, member in value.items()}}
    if isinstance(value, (list, tuple)):
        return [_encode(member, arrays) for member in value]
    if isinstance(value, np.generic) or (np.shape(value) == () and hasattr(value, "dtype")):
        value = np.asarray(value).item()
    if isinstance(value, float) and not np.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    arrays.extend(as_arrays([value]))
    return {"array": len(arrays) - 1}


def _decode(value, arrays):
    if isinstance(value, list):
        return [_decode(member, arrays) for member in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "dict":
        return {key: _decode(member, arrays) for key, member in content.items()}
    return float(content) if kind == "float" else arrays[content]
