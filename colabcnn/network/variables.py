"""Convert Keras variables to NumPy arrays and back."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from colabcnn.encoding import new_array
from colabcnn.errors import Error


def read_arrays(variables: Iterable[keras.Variable]) -> list[np.ndarray]:
    """Return the values of Keras variables as new arrays of the same dtype; bfloat16 as float32.

    Raises:
        Error: a value is of a type that could not be read from a file again, such as 8-bit floats.
    """
    arrays = [new_array(keras.ops.convert_to_numpy(variable)) for variable in variables]
    for array in arrays:
        if array.dtype.kind not in "biufc":
            raise Error(f"a checkpoint cannot hold a value of type {array.dtype}; expected numbers.")
    return arrays


def check_arrays(variables: Sequence[keras.Variable], arrays: Sequence[np.ndarray], name: str) -> None:
    """Raise an `Error` unless the arrays that `read_arrays` returned fit Keras variables.

    Args:
        variables: Keras variables.
        arrays: as many arrays, of the same shapes.
        name: of the variables as a group, for the message.
    """
    expected, found = [tuple(variable.shape) for variable in variables], [array.shape for array in arrays]
    if expected != found:
        shapes = next(((one, other) for one, other in zip(found, expected, strict=False) if one != other), None)
        first = f"; the first that differs has the shape {shapes[0]} instead of {shapes[1]}" if shapes else ""
        raise Error(
            f"the checkpoint's {name} ({len(arrays)} arrays) do not fit this model and this Keras ({len(variables)} "
            f"variables{first}); use another folder for another model, or resume with the versions that the run "
            "started with."
        )


def assign_arrays(variables: Sequence[keras.Variable], arrays: Sequence[np.ndarray], name: str) -> None:
    """Assign arrays to Keras variables, after `check_arrays`.

    Raises:
        Error: they do not fit; no variable was changed.
    """
    check_arrays(variables, arrays, name)
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def is_finite(value: Any) -> bool:
    """Return whether a variable, an array, a number or a container holds no NaN and no infinity."""
    if isinstance(value, (list, tuple)):
        return all(map(is_finite, value))
    if isinstance(value, Mapping):
        return all(map(is_finite, value.values()))
    try:
        array = np.asarray(keras.ops.convert_to_numpy(value) if isinstance(value, keras.Variable) else value)
        array = array.astype(np.float32) if array.dtype.name == "bfloat16" else array
        return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())
    except Exception:  # Whatever an object does when it is asked for an array: it holds no numbers.
        return True
