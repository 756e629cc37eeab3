"""Types of Keras that type checkers infer wrongly, declared once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    from colabcnn.network.training_model import TrainingModel

Logs = dict[str, Any]
"""What Keras passes to a callback: numbers by name."""

ops: Any = keras.ops
"""Keras's operations. Type checkers infer None as a possible result, for backends that lack an operation."""


class FitCallback(keras.callbacks.Callback):
    """A callback of `fit`; Keras sets both attributes before it calls a method.

    Their types are those of a `TrainingModel`; a callback for other models declares `model` again.
    """

    model: TrainingModel
    params: dict[str, Any]
