"""State that a fit needs beside `model.variables` and `model.optimizer.variables`.

Such as a second optimizer, a layer that only `train_step` calls, a generator or a counter that Keras does not track.
"""

import hashlib
import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import keras
import numpy as np

from colabcnn.encoding import Encoder, decode, new_array
from colabcnn.network.held_objects import (
    CONTAINERS,
    FOREIGN,
    is_of_keras,
    is_variable,
    joined,
    may_hold,
    members_of,
    objects_in,
    package_of,
)

_MAX_NUMBERS = 1 << 24  # Larger arrays are data.


@dataclass(frozen=True)
class FitState:
    """What a model holds, by the path of attributes that leads to it, such as "generator.optimizer.iterations".

    Args:
        model: `keras.Model`, compiled.
        objects: the model itself, by "", and its layers, optimizers, metrics, variables and others, each once, in the
            order in which they are found.
    """

    model: keras.Model
    objects: dict[str, Any]

    @classmethod
    def of(cls, model: keras.Model, before: "FitState | None" = None) -> "FitState":
        """Find what a model holds now; layers and optimizers may get more variables in the first step.

        Args:
            model: `keras.Model`.
            before: what it held earlier: an object keeps the path that it had.
        """
        paths = {id(value): path for path, value in before.objects.items()} if before else {}
        found = {"": model, **objects_in(model)}
        kept = {paths[id(value)] for value in found.values() if id(value) in paths}
        objects = {}
        for path, value in found.items():
            if id(value) in paths:
                path = paths[id(value)]
            else:
                while path in kept or path in objects:  # A new object where an older one was, which is now elsewhere.
                    path += "'"
            objects[path] = value
        return cls(model, objects)

    def variables(self) -> dict[str, Any]:
        """Return the variables by path that belong neither to `model.variables` nor to `model.optimizer`."""
        optimizer = getattr(self.model, "optimizer", None)
        known = {id(variable) for variable in (*self.model.variables, *(optimizer.variables if optimizer else ()))}
        found = {path: value for path, value in self.objects.items() if is_variable(value) and id(value) not in known}
        # Keras sets these metrics to zero at the beginning of each epoch.
        reset, resets = set(), self.model.reset_metrics == keras.Model.reset_metrics.__get__(self.model)
        for metric in self.model.metrics if resets else ():
            for held in (metric, *objects_in(metric).values()):
                if is_keras_metric(held) and "reset_state" not in vars(held):
                    reset |= {id(variable) for variable in held._variables}
        return {path: variable for path, variable in found.items() if id(variable) not in reset}

    def unbuilt(self) -> list[str]:
        """Return the paths of layers whose variables do not exist yet."""
        return [path for path, value in self.objects.items() if isinstance(value, keras.Layer) and not value.built]

    def build_plan(self, before: "FitState", late: set[str]) -> tuple[dict[str, Any], list[str]]:
        """Return what `build` needs in another process, and what it cannot build.

        Args:
            before: what the model held before its first step.
            late: the paths of layers that the first step has built.

        Returns:
            `(plan, unplanned)`: a dict of `layers`, from path to Keras's own build config, encoded, and of
            `optimizers`, from path to the paths of the variables that it trains; and the paths of layers that the first
            step has made or built in a way that the plan does not describe.
        """
        layers, optimizers, unplanned = {}, {}, []
        paths = {id(value): path for path, value in self.objects.items()}
        for path, value in self.objects.items():
            if isinstance(value, keras.Layer) and (path in late or path not in before.objects):
                encoder = Encoder()
                config = encoder.encode(value.get_build_config(), path) if path in before.objects else None
                if config and not encoder.arrays and not encoder.left_out:
                    layers[path] = config
                elif value.built and (value._trainable_variables or value._non_trainable_variables):
                    unplanned.append(path)
            if isinstance(value, keras.optimizers.Optimizer) and value.built:
                trained = [paths.get(id(variable)) for variable in getattr(value, "_trainable_variables", [])]
                if trained and None not in trained:
                    optimizers[path] = trained
        return {"layers": layers, "optimizers": optimizers}, unplanned

    def build_layers(self, plan: dict[str, Any]) -> "FitState":
        """Build the layers of a plan that are not built yet, and return what the model holds then."""
        for path, config in plan["layers"].items():
            layer = self.objects.get(path)
            if isinstance(layer, keras.Layer) and not layer.built:
                layer.build_from_config(decode(config, []))
                layer.built = True
        return FitState.of(self.model, self)

    def build_optimizers(self, plan: dict[str, Any]) -> "FitState":
        """Build the optimizers of a plan that are not built yet, and return what the model holds then."""
        for optimizer, trained in self._planned(plan):
            if not optimizer.built:
                optimizer.build(trained)
        return FitState.of(self.model, self)

    def trainable(self) -> dict[str, bool]:
        """Return by path of each layer whether it is trained."""
        return {path: value.trainable for path, value in self.objects.items() if isinstance(value, keras.Layer)}

    def trains_others(self, plan: dict[str, Any]) -> bool:
        """Return whether a plan's main optimizer trains other variables than the model's optimizer does, or will."""
        model, optimizer = self.model, self.model.optimizer
        if optimizer and optimizer.built:
            now = getattr(optimizer, "_trainable_variables", [])
        elif type(model).train_step is keras.Model.train_step:
            now = model.trainable_variables
        else:  # A step of the user's own may train any of them.
            return False
        planned = (trained for planned, trained in self._planned(plan) if planned is optimizer)
        return any({*map(id, trained)} != {*map(id, now)} for trained in planned)

    def _planned(self, plan):
        """Return `(optimizer, the variables that it trains)` of a plan's optimizers that are here with these."""
        found = ((self.objects.get(path), names) for path, names in plan["optimizers"].items())
        return [
            (optimizer, [self.objects[name] for name in names])
            for optimizer, names in found
            if isinstance(optimizer, keras.optimizers.Optimizer) and all(name in self.objects for name in names)
        ]

    def read(self) -> tuple[dict[str, np.ndarray], list[str]]:
        """Return `(arrays, unreadable)`: the values of `variables` by path, and the paths of those without numbers."""
        arrays, unreadable = {}, []
        for path, variable in self.variables().items():
            array = new_array(keras.ops.convert_to_numpy(variable))
            if array.dtype.kind in "biuf":
                arrays[path] = array
            else:
                unreadable.append(path)
        return arrays, unreadable

    def assign(self, arrays: dict[str, np.ndarray]) -> list[str]:
        """Give `variables` the values that `read` returned; return the paths without a variable of that shape."""
        present, missing = self.variables(), []
        for path, array in arrays.items():
            if path in present and tuple(present[path].shape) == array.shape:
                present[path].assign(array)
            else:
                missing.append(path)
        return missing

    def plain_values(self) -> dict[str, str]:
        """Return by path what represents plain attributes of the user's own classes.

        These are None, numbers, texts and arrays, also in dicts and lists, and the lengths of these.
        """
        values = {}
        for path, value in self.objects.items():
            if package_of(value) in FOREIGN or not hasattr(value, "__dict__"):
                continue
            for name, member in vars(value).items():
                if not is_of_keras(name):
                    values |= _plain_values_in(joined(path, name), member)
        return values

    def only_in_sets(self) -> list[str]:
        """Return the paths of sets with variables that are nowhere else: a set has another order in each process."""
        known, found = {id(value) for value in self.objects.values()}, []
        for path, value in self.objects.items():
            for name, member in getattr(value, "__dict__", {}).items():
                if isinstance(member, (set, frozenset)):
                    inner = (one.deref() if hasattr(one, "deref") else one for one in member)
                    if any(id(one) not in known and (is_variable(one) or may_hold(one)) for one in inner):
                        found.append(joined(path, name))
        return found


def is_keras_metric(value: Any) -> bool:
    """Return whether an object is a metric of Keras's own classes."""
    return isinstance(value, keras.Metric) and package_of(value) == "keras"


def changed_values(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the paths of `plain_values` that differ, of a container and its members the container's alone.

    Paths that only one of them has do not count.
    """
    changed = {path: None for path in before if path in after and before[path] != after[path]}
    return [path for path in changed if changed.keys().isdisjoint([*accumulate(path.split("."), "{}.{}".format)][:-1])]


def _plain_values_in(path, value, depth=4):
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.generic)):
        return {path: repr(value)}
    if hasattr(value, "__array__") and not is_variable(value):  # Sparse tensors have none.
        try:
            array = np.asarray(value) if math.prod(value.shape) <= _MAX_NUMBERS else None
        except Exception:  # A tensor of a graph, or one whose memory a step has taken over.
            return {}
        is_number = array is not None and array.dtype.kind != "O"
        return {path: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()} if is_number else {}
    if not isinstance(value, CONTAINERS) or not may_hold(value) or not depth:
        return {}
    values = {path: f"{len(value)} members"}
    for name, member in members_of(value):
        values |= _plain_values_in(joined(path, name), member, depth - 1)
    return values
