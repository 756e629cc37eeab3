"""The objects that a model holds, found by the attributes, lists and dicts that lead to them."""

import functools
import sys
from collections import deque
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import keras

_HOLDERS = (
    keras.layers.Layer,
    keras.optimizers.Optimizer,
    keras.metrics.Metric,
    keras.losses.Loss,
    keras.random.SeedGenerator,
)
# Objects of these packages hold no state of the model but what `_HOLDERS` hold.
FOREIGN = {"keras", "tensorflow", "jax", "jaxlib", "numpy", "builtins", *sys.stdlib_module_names}
# TensorFlow's own lists of what an object holds.
_TENSORFLOWS = "_self_"
CONTAINERS = (Mapping, list, tuple, deque)
# Longer lists, and more objects than these, are data.
_MAX_MEMBERS, _MAX_OBJECTS = 10_000, 100_000


def joined(path: str, name: Any) -> str:
    """Return the path of a member of what is at a path."""
    return f"{path}.{name}".lstrip(".")


def objects_in(holder: Any) -> dict[str, Any]:
    """Return by path the variables and the other objects that an object holds, each once."""
    found, seen, waiting = {}, {id(holder)}, [("", holder)]
    for path, value in waiting:
        for name, member in members_of(value):
            if id(member) not in seen and len(waiting) < _MAX_OBJECTS and (is_variable(member) or may_hold(member)):
                seen.add(id(member))
                inner = joined(path, name)
                if not isinstance(member, CONTAINERS):
                    while inner in found:  # Such as "a.0" of a dict's key "a.0", and of a list at its key "a".
                        inner += "'"
                    found[inner] = member
                waiting.append((inner, member))
    return found


def members_of(value: Any) -> list[tuple[Any, Any]]:
    """Return `(name, member)` of a container or an object; none of a variable."""
    if is_variable(value):
        return []
    try:
        if isinstance(value, Mapping):
            # Another object's representation may differ in the next process.
            return [(k if isinstance(k, (str, int)) else f"[{n}]", value[k]) for n, k in enumerate(value)]
        if isinstance(value, (list, tuple, deque)):
            return list(enumerate(value))
        slots = [
            name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()) if hasattr(value, name)
        ]
        own = [vars(kind) for kind in type(value).__mro__[::-1] if kind.__module__.partition(".")[0] not in FOREIGN]
        of_class = {name: member for names in own for name, member in names.items() if not name.startswith("__")}
        members = of_class | {name: getattr(value, name) for name in slots} | getattr(value, "__dict__", {})
    except Exception:  # Of an object that is closed, or loads its members when it is asked.
        return []
    # An optimizer's own list of what it trains is no path: it is empty before the optimizer is built.
    skipped = {"_trainable_variables"} if isinstance(value, keras.optimizers.Optimizer) else set()
    return [(n, member) for n, member in members.items() if n not in skipped and not n.startswith(_TENSORFLOWS)]


def may_hold(value: Any) -> bool:
    """Return whether state of the model may be below an object."""
    try:
        if isinstance(value, CONTAINERS):
            return len(value) <= _MAX_MEMBERS
        if isinstance(value, (*_HOLDERS, SimpleNamespace)) or _holds_in_tensorflow(value):
            return True
        has_members = hasattr(value, "__dict__") or hasattr(type(value), "__slots__")
        return has_members and not isinstance(value, type) and package_of(value) not in FOREIGN
    except Exception:
        return False


def _holds_in_tensorflow(value):
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None:
        return False
    kinds = (tensorflow.Module, tensorflow.random.Generator, tensorflow.train.ExponentialMovingAverage)
    return isinstance(value, kinds)


def is_variable(value: Any) -> bool:
    """Return whether an object is a variable of Keras or of TensorFlow."""
    tensorflow = sys.modules.get("tensorflow")
    return isinstance(value, keras.Variable) or (tensorflow is not None and isinstance(value, tensorflow.Variable))


def package_of(value: Any) -> str:
    """Return the name of the package of an object's class."""
    return type(value).__module__.partition(".")[0]


def is_of_keras(name: str) -> bool:
    """Return whether Keras or TensorFlow gives any model an attribute of that name."""
    return name in _keras_names() or name.startswith(_TENSORFLOWS)


@functools.cache
def _keras_names():
    return {*vars(keras.Model()), *vars(keras.Layer()), "stop_training", "_jax_state"}
