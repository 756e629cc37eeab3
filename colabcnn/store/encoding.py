"""Python values as the JSON text and the arrays of a checkpoint, and back with their types."""

import base64
import datetime
import math
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

_MOMENTS = (datetime.datetime, datetime.date, datetime.time)  # A datetime is a date, too.
# The kinds of arrays that safetensors writes.
_NUMBERS = "biuf"


class Encoder:
    """Encode values for one checkpoint.

    None, bool, int, float, str, bytes, lists, tuples, sets, dicts, paths, dates, times, NumPy's scalars and arrays
    keep their type; a tensor or a Keras variable becomes an array. Anything else is left out.

    After `encode`, `arrays` holds the arrays, and `left_out` the type's name of each value that is not kept, by the
    path that leads to it.
    """

    def __init__(self):
        self.arrays: list[np.ndarray] = []
        self.left_out: dict[str, str] = {}

    def encode(self, value: Any, path: str) -> Any:
        """Return JSON types for a value; `path` is its name in `left_out`."""
        if value is None or isinstance(value, (bool, str)) or type(value) is int:
            return value
        if isinstance(value, np.generic):
            return self._scalar(value, path)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"float": str(float(value))}
        if isinstance(value, list):
            return self._members(value, path)
        if isinstance(value, Mapping):
            items = [
                [self.encode(key, f"{path} (a key)"), self.encode(member, f"{path}.{key}")]
                for key, member in value.items()
            ]
            return {"dict": dict(items)} if all(isinstance(key, str) for key, _ in items) else {"items": items}
        if (typed := self._typed(value, path)) is not None:
            return typed
        return self._array(value, path)

    def _typed(self, value, path):
        for kind in (tuple, set, frozenset):
            if isinstance(value, kind):
                return {kind.__name__: self._members(value, path)}
        for kind in _MOMENTS:
            if isinstance(value, kind):
                return {kind.__name__: value.isoformat()}
        match value:
            case bytes() | bytearray():
                return {"bytes": base64.b64encode(value).decode()}
            case PurePath():
                return {"path": str(value)}
            case datetime.timedelta():
                return {"timedelta": [value.days, value.seconds, value.microseconds]}
            case complex():
                return {"complex": [self.encode(part, path) for part in (value.real, value.imag)]}
            case int():  # An IntEnum, and the like.
                return int(value)
        return None

    def _members(self, values, path):
        return [self.encode(member, f"{path}[{index}]") for index, member in enumerate(values)]

    def _scalar(self, value, path):
        if value.dtype.kind in _NUMBERS and value.dtype.itemsize <= 8:
            return {"scalar": [value.dtype.str, self.encode(value.item(), path)]}
        encoded = self._array(value, path)
        return {"raw_scalar": encoded["raw"]} if "raw" in encoded else encoded

    def _array(self, value, path):
        try:
            array = np.array(np.asarray(value))  # A copy: under JAX the next step may overwrite the buffer.
        except Exception:  # Whatever the object does when it is asked for an array.
            return self._leave_out(value, path)
        if array.dtype.name == "bfloat16":  # NumPy by itself knows none; float32 holds each of its values.
            array = array.astype(np.float32)
        if array.dtype.kind in _NUMBERS and array.dtype.itemsize <= 8:
            self.arrays.append(array)
            return {"array": len(self.arrays) - 1}
        if array.dtype.kind in "cMmUS" and array.dtype.itemsize:
            raw = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
            return {"raw": [array.dtype.str, list(array.shape), raw]}
        return self._leave_out(value, path)

    def _leave_out(self, value, path):
        self.left_out[path] = type(value).__name__
        return {"left_out": type(value).__name__}


def decode(value: Any, arrays: list[np.ndarray]) -> Any:
    """Return the value that `Encoder.encode` has encoded; what was left out is None.

    Raises:
        AttributeError, LookupError, TypeError, ValueError: it is not what `encode` returns.
    """
    if isinstance(value, list):
        return [decode(member, arrays) for member in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    return _DECODERS[kind](content, arrays)


def _decode_raw(content, arrays):
    dtype, shape, raw = content
    if np.dtype(dtype).kind not in "cMmUS":
        raise ValueError(dtype)
    return np.frombuffer(base64.b64decode(raw), dtype).reshape(shape).copy()


def _decode_scalar(content, arrays):
    dtype, number = np.dtype(content[0]), decode(content[1], arrays)
    if dtype.kind not in _NUMBERS:
        raise ValueError(content[0])
    return dtype.type(number)


_DECODERS = {
    "dict": lambda content, arrays: {key: decode(member, arrays) for key, member in content.items()},
    "items": lambda content, arrays: {decode(key, arrays): decode(member, arrays) for key, member in content},
    "tuple": lambda content, arrays: tuple(decode(content, arrays)),
    "set": lambda content, arrays: set(decode(content, arrays)),
    "frozenset": lambda content, arrays: frozenset(decode(content, arrays)),
    "float": lambda content, arrays: float(content),
    "complex": lambda content, arrays: complex(*decode(content, arrays)),
    "bytes": lambda content, arrays: base64.b64decode(content),
    "path": lambda content, arrays: Path(content),
    "timedelta": lambda content, arrays: datetime.timedelta(*content),
    "array": lambda content, arrays: arrays[content],
    "raw": _decode_raw,
    "raw_scalar": lambda content, arrays: _decode_raw(content, arrays)[()],
    "scalar": _decode_scalar,
    "left_out": lambda content, arrays: None,
    **{kind.__name__: (lambda content, arrays, kind=kind: kind.fromisoformat(content)) for kind in _MOMENTS},
}
