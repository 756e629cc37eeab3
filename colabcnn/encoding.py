"""Python values as the JSON text and the arrays of a checkpoint, and back with their types."""

import base64
import datetime
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_MOMENTS = (datetime.datetime, datetime.date, datetime.time)  # A datetime is a date, too.
# The kinds of arrays that safetensors writes.
_NUMBERS = "biuf"
# Also the end of a list that holds itself.
MAX_DEPTH = 50
# Python refuses to write an int of more than 4,300 digits as text.
_MAX_BITS = 10_000
_DTYPE = re.compile(r"[<>|=][a-zA-Z]\d{1,9}(\[\d*[a-zA-Z]{1,2}\])?")


def new_array(value: Any) -> np.ndarray:
    """Return a copy as an array: under JAX, the next step may overwrite the buffer that an array is a view of.

    bfloat16 becomes float32, which holds each of its values: NumPy has none, and could not read a file of it.
    """
    array = np.array(np.asarray(value))  # Keras's `__array__` does not take `copy`.
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


class Encoder:
    """Encode values for one checkpoint.

    None, bool, int, float, complex, str, bytes, lists, tuples, sets, dicts, paths, dates, times, NumPy's scalars and
    arrays keep their type; a tensor or a Keras variable becomes an array. Anything else is left out, and so is what
    lies deeper than `MAX_DEPTH`.

    After `encode`, `arrays` holds the arrays, and `left_out` the type's name of each value that is not kept, by the
    path that leads to it.
    """

    def __init__(self):
        self.arrays: list[np.ndarray] = []
        self.left_out: dict[str, str] = {}

    def encode(self, value: Any, path: str, depth: int = 0) -> Any:
        """Return JSON types for a value; `path` is its name in `left_out`."""
        kind = type(value)
        if depth >= MAX_DEPTH:
            return self._leave_out(value, path)
        if value is None or kind in (bool, str):
            return value
        if kind is int:
            return value if value.bit_length() <= _MAX_BITS else self._leave_out(value, path)
        if kind is float:
            return value if math.isfinite(value) else {"float": str(value)}
        if kind is list:
            return self._members(value, path, depth)
        if kind is dict:
            return self._dict(value, path, depth)
        if isinstance(value, np.generic):
            return self._scalar(value, path)
        if kind is tuple:
            return {"tuple": self._members(value, path, depth)}
        if kind in (set, frozenset):
            return {kind.__name__: [encoded for _, encoded in self._keys(value, f"{path} (a member)", depth)]}
        if kind in _MOMENTS:
            return {kind.__name__: value.isoformat()}
        if kind is bytes:
            return {"bytes": base64.b64encode(value).decode()}
        if kind is datetime.timedelta:
            return {"timedelta": [value.days, value.seconds, value.microseconds]}
        if kind is complex:
            return {"complex": [self.encode(part, path) for part in (value.real, value.imag)]}
        if isinstance(value, Path):
            return {"path": str(value)}
        if isinstance(value, (int, float, str, list, tuple, set, frozenset, Mapping, bytearray, _MOMENTS)):
            return self._leave_out(value, path)  # A subclass: it would come back as another type.
        return self._array(value, path)

    def _dict(self, value, path, depth):
        keys = self._keys(value, f"{path} (a key)", depth)
        items = [[encoded, self.encode(value[key], f"{path}.{key}", depth + 1)] for key, encoded in keys]
        return {"dict": dict(items)} if all(isinstance(key, str) for key, _ in items) else {"items": items}

    def _keys(self, keys, path, depth):
        """Yield each key with what it is encoded as; one that would come back as another value is left out."""
        for key in keys:
            of_key = Encoder()
            encoded = of_key.encode(key, path, depth + 1)
            if not of_key.left_out and _is_hashable(decode(encoded, of_key.arrays)):
                yield key, encoded
            else:
                self.left_out[path] = next(iter(of_key.left_out.values()), type(key).__name__)

    def _members(self, values, path, depth):
        return [self.encode(member, f"{path}[{index}]", depth + 1) for index, member in enumerate(values)]

    def _scalar(self, value, path):
        if value.dtype.kind in _NUMBERS and value.dtype.itemsize <= 8:
            return {"scalar": [value.dtype.str, self.encode(value.item(), path)]}
        encoded = self._array(value, path)
        return {"raw_scalar": encoded["raw"]} if "raw" in encoded else encoded

    def _array(self, value, path):
        if not hasattr(value, "__array__"):
            return self._leave_out(value, path)
        try:
            array = new_array(value)
        except Exception:  # Whatever the object does when it is asked for an array.
            return self._leave_out(value, path)
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


def decode(value: Any, arrays: list[np.ndarray], depth: int = 0) -> Any:
    """Return the value that `Encoder.encode` has encoded; what was left out is None.

    Raises:
        AttributeError, LookupError, OverflowError, TypeError, ValueError: it is not what `encode` returns.
    """
    if depth > 4 * MAX_DEPTH:
        raise ValueError("nested too deeply")

    def inner(member):
        return decode(member, arrays, depth + 1)

    if isinstance(value, list):
        return [inner(member) for member in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    return arrays[content] if kind == "array" else _DECODERS[kind](content, inner)


def _is_hashable(value):
    try:
        return hash(value) is not None
    except TypeError:
        return False


def _decode_raw(content, inner=None):
    dtype, shape, raw = content
    return np.frombuffer(base64.b64decode(raw), _dtype(dtype, "cMmUS")).reshape(shape).copy()


def _decode_scalar(content, inner):
    dtype, number = content
    return _dtype(dtype, _NUMBERS).type(inner(number))


def _dtype(text, kinds):
    """Return NumPy's type of a text as `dtype.str` is; NumPy itself reads more, with errors of more kinds."""
    if not _DTYPE.fullmatch(text) or np.dtype(text).kind not in kinds:
        raise ValueError(text)
    return np.dtype(text)


# By kind: a function that takes the encoded content, and a function that decodes a part of it, and returns the value.
_DECODERS = {
    "dict": lambda content, inner: {key: inner(member) for key, member in content.items()},
    "items": lambda content, inner: {inner(key): inner(member) for key, member in content},
    "tuple": lambda content, inner: tuple(inner(content)),
    "set": lambda content, inner: set(inner(content)),
    "frozenset": lambda content, inner: frozenset(inner(content)),
    "complex": lambda content, inner: complex(*inner(content)),
    "float": lambda content, inner: float(content),
    "bytes": lambda content, inner: base64.b64decode(content),
    "path": lambda content, inner: Path(content),
    "timedelta": lambda content, inner: datetime.timedelta(*content),
    "raw": _decode_raw,
    "raw_scalar": lambda content, inner: _decode_raw(content)[()],
    "scalar": _decode_scalar,
    "left_out": lambda content, inner: None,
    **{kind.__name__: (lambda content, inner, kind=kind: kind.fromisoformat(content)) for kind in _MOMENTS},
}
