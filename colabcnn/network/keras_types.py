"""What Keras leaves to be inferred, and is inferred wrongly: said once, for all that compute with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    from colabcnn.network.training_model import TrainingModel

Logs = dict[str, Any]
"""What Keras tells a callback: numbers by name."""

ops: Any = keras.ops
"""Keras's operations. Each is inferred to return None, too, for backends that lack it."""


class FitCallback(keras.callbacks.Callback):
    """A callback of a `TrainingModel`: Keras sets both of these before it calls anything else."""

    model: TrainingModel
    params: dict[str, Any]
