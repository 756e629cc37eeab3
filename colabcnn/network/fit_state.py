"""State that a fit needs beside `model.variables` and `model.optimizer.variables`.

Such as a second optimizer, a layer that only `train_step` calls, a generator or a counter that Keras does not track.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from colabcnn.network.variables import as_arrays

_HOLDERS = (
    keras.layers.Layer,
    keras.optimizers.Optimizer,
    keras.metrics.Metric,
    keras.losses.Loss,
    keras.random.SeedGenerator,
)
# Objects of these packages hold no state of the model but what `_HOLDERS` hold.
_FOREIGN = {"keras", "tensorflow", "jax", "jaxlib", "numpy", "builtins", *sys.stdlib_module_names}
# TensorFlow's own lists of what an object holds.
_TENSORFLOWS = "_self_"
# A longer list is data.
_MAX_MEMBERS = 10_000


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
    def of(cls, model: keras.Model) -> "FitState":
        """Find what a model holds now; layers and optimizers may get more variables in the first step."""
        return cls(model, {"": model, **_objects_in(model)})

    def variables(self) -> dict[str, Any]:
        """Return the variables by path that belong neither to `model.variables` nor to `model.optimizer`."""
        optimizer = getattr(self.model, "optimizer", None)
        known = {id(variable) for variable in (*self.model.variables, *(optimizer.variables if optimizer else ()))}
        found = {path: value for path, value in self.objects.items() if _is_variable(value) and id(value) not in known}
        # Keras sets its own metrics to zero at the beginning of each epoch.
        metrics = [v for v in self.objects.values() if isinstance(v, keras.Metric) and _package_of(v) == "keras"]
        reset = {id(variable) for metric in metrics for variable in metric._variables}
        return {path: variable for path, variable in found.items() if id(variable) not in reset}

    def unbuilt(self) -> list[str]:
        """Return the paths of layers whose variables do not exist yet."""
        return [path for path, value in self.objects.items() if isinstance(value, keras.Layer) and not value.built]

    def build_plan(self, late: set[str]) -> dict[str, Any]:
        """Return as JSON types what `build` needs in another process.

        Args:
            late: the paths of layers that the first step has built.

        Returns:
            A dict of `layers`, from path to Keras's own build config, and of `optimizers`, from path to the paths of
            the variables that it trains.
        """
        paths = {id(value): path for path, value in self.objects.items()}
        layers = {path: self.objects[path].get_build_config() for path in late if path in self.objects}
        optimizers = {}
        for path, value in self.objects.items():
            if isinstance(value, keras.optimizers.Optimizer) and value.built:
                trained = [paths.get(id(variable)) for variable in getattr(value, "_trainable_variables", [])]
                optimizers[path] = trained if trained and None not in trained else None
        return {
            "layers": {path: config for path, config in layers.items() if config},
            "optimizers": {path: trained for path, trained in optimizers.items() if trained},
        }

    def unplanned(self, late: set[str], plan: dict[str, Any]) -> list[str]:
        """Return the paths of layers that the first step has built and that no plan can build."""
        built = [path for path in late if path in self.objects and self.objects[path].built]
        return [path for path in built if path not in plan["layers"] and _own_variables(self.objects[path])]

    def build(self, plan: dict[str, Any]) -> "FitState":
        """Build the layers and optimizers of a plan that are not built yet, and return what the model holds then."""
        for path, config in plan["layers"].items():
            layer = self.objects.get(path)
            if isinstance(layer, keras.Layer) and not layer.built:
                layer.build_from_config(config)
                layer.built = True
        state = FitState.of(self.model)
        for path, trained in plan["optimizers"].items():
            optimizer = state.objects.get(path)
            present = all(name in state.objects for name in trained)
            if isinstance(optimizer, keras.optimizers.Optimizer) and not optimizer.built and present:
                optimizer.build([state.objects[name] for name in trained])
        return FitState.of(self.model)

    def read(self) -> tuple[list[str], list[np.ndarray], list[str]]:
        """Return `(paths, arrays, unreadable)` of `variables`; the last are the paths of those that hold no numbers."""
        paths, arrays, unreadable = [], [], []
        for path, variable in self.variables().items():
            value = np.asarray(keras.ops.convert_to_numpy(variable))
            if value.dtype.kind in "biufc" or value.dtype.name == "bfloat16":
                paths.append(path)
                arrays.extend(as_arrays([value]))
            else:
                unreadable.append(path)
        return paths, arrays, unreadable

    def assign(self, paths: list[str], arrays: list[np.ndarray]) -> list[str]:
        """Give `variables` the values that `read` returned; return the paths without a variable of that shape."""
        present, missing = self.variables(), []
        for path, array in zip(paths, arrays, strict=True):
            if path in present and tuple(present[path].shape) == array.shape:
                present[path].assign(array)
            else:
                missing.append(path)
        return missing

    def plain_values(self) -> dict[str, Any]:
        """Return numbers and arrays by path that are plain attributes of the user's own classes."""
        values = {}
        for path, value in self.objects.items():
            if _package_of(value) not in _FOREIGN and hasattr(value, "__dict__"):
                for name, member in vars(value).items():
                    if isinstance(member, (bool, int, float, np.ndarray, np.generic)) and not _is_of_keras(name):
                        values[f"{path}.{name}".lstrip(".")] = np.array(member)
        return values


def changed_values(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the paths of `plain_values` that differ; those that only one of them has do not count."""
    return [path for path in before if path in after and not np.array_equal(before[path], after[path], equal_nan=True)]


def _objects_in(model: keras.Model) -> dict[str, Any]:
    seen, waiting = {id(model)}, [("", model)]
    for path, value in waiting:
        for name, member in _members_of(value):
            if id(member) not in seen and (_is_variable(member) or _may_hold(member)):
                seen.add(id(member))
                waiting.append((f"{path}.{name}".lstrip("."), member))
    return {path: value for path, value in waiting[1:] if not isinstance(value, (Mapping, list, tuple))}


def _members_of(value):
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    if _is_variable(value):
        return []
    # An optimizer's own list of what it trains is no path: it is empty before the optimizer is built.
    skipped = {"_trainable_variables"} if isinstance(value, keras.optimizers.Optimizer) else set()
    return [(n, member) for n, member in vars(value).items() if n not in skipped and not n.startswith(_TENSORFLOWS)]


def _may_hold(value):
    if isinstance(value, (Mapping, list, tuple)):
        return len(value) <= _MAX_MEMBERS
    if isinstance(value, _HOLDERS):
        return True
    return hasattr(value, "__dict__") and not isinstance(value, type) and _package_of(value) not in _FOREIGN


def _own_variables(layer):
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def _is_variable(value):
    tensorflow = sys.modules.get("tensorflow")
    return isinstance(value, keras.Variable) or (tensorflow is not None and isinstance(value, tensorflow.Variable))


def _package_of(value):
    return type(value).__module__.partition(".")[0]


def _is_of_keras(name):
    """Whether Keras or TensorFlow gives any model an attribute of that name."""
    if not _KERAS_NAMES:
        _KERAS_NAMES.update(vars(keras.Model()), vars(keras.Layer()), ["stop_training"])
    return name in _KERAS_NAMES or name.startswith(_TENSORFLOWS)


_KERAS_NAMES: set[str] = set()
