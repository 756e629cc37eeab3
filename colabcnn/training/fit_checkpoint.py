"""The state of anybody's `fit` as a checkpoint, and back."""

import functools
import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import keras

from colabcnn.errors import Error
from colabcnn.network.devices import device_name, versions
from colabcnn.network.fit_state import FitState, changed_values, is_keras_metric
from colabcnn.network.keras_types import Logs, ops
from colabcnn.network.variables import assign_arrays, check_arrays, is_finite, read_arrays
from colabcnn.store.checkpoint import Checkpoint
from colabcnn.training.callback_states import not_restored, restore_states, save_states


class FitCheckpoint:
    """Take and restore the checkpoints of one `fit`.

    Args:
        model: `keras.Model`, compiled; as it is when training begins, before a restore.
        callbacks: those of the `fit` whose state is kept.
        info: callable that shows a message.
    """

    def __init__(self, model: keras.Model, callbacks: Iterable[keras.callbacks.Callback], info: Callable[[str], None]):
        self._model = model
        self._callbacks = callbacks
        self._info = info
        self._before = FitState.of(model)
        self._rate = _rate_of(model.optimizer)
        self._late_layers = set(self._before.unbuilt())
        self._info_once = functools.cache(info)
        self._diverged = False
        self._finite_logs = {"loss"}  # A metric may be NaN in each epoch, and the training fine.

    def fingerprint(self) -> str | None:
        """Return a digest that identifies the model's runs, or None while some of its layers have no weights."""
        if self._late_layers and FitState.of(self._model).unbuilt():
            return None
        shapes = [tuple(variable.shape) for variable in self._model.variables]
        return hashlib.sha256(repr(shapes).encode()).hexdigest()

    def begin(self) -> None:
        """Note the values that training starts from, restored or not."""
        state = FitState.of(self._model, self._before)
        self._plain_values = state.plain_values()
        self._trainable = state.trainable()
        variables = (*self._model.variables, *state.variables().values())
        # Such as a smallest loss so far, which starts at infinity.
        self._never_finite = {id(variable) for variable in variables if not is_finite(variable)}

    def make(self, epoch: int, progress: dict[str, Any], logs: Logs) -> Checkpoint | None:
        """Return the checkpoint after an epoch, or None if logs or weights that were finite hold NaN or infinity.

        What a resume will not restore, and the first of several epochs that are not finite, are reported.

        Args:
            epoch: how many epochs are done.
            progress: more metadata, JSON types.
            logs: the epoch's.
        """
        state = FitState.of(self._model, self._before)
        others, unreadable = state.read()
        # What Keras makes in the first step for a metric given by its name cannot be restored before it.
        metrics = tuple(f"{path}." for path, value in state.objects.items() if is_keras_metric(value))
        others = {path: others[path] for path in others if path in self._before.objects or not path.startswith(metrics)}
        optimizer = self._model.optimizer
        groups = {
            "model": read_arrays(self._model.variables),
            "optimizer": read_arrays(optimizer.variables if optimizer else ()),
            "others": list(others.values()),
        }
        variables = state.variables()
        named = [(variable.path, variable) for variable in self._model.variables]
        named += [(path, variables[path]) for path in others]
        arrays = [*groups["model"], *groups["others"]]
        self._finite_logs |= {name for name, value in logs.items() if is_finite(value)}
        not_finite = [name for name in logs if name in self._finite_logs and not is_finite(logs[name])] or [
            name
            for (name, variable), array in zip(named, arrays, strict=True)
            if id(variable) not in self._never_finite and not is_finite(array)
        ]
        if not_finite:
            self._report_divergence(epoch, not_finite)
            return None
        self._diverged = False
        states, groups["callbacks"] = save_states(self._callbacks, self._info_once)
        plan, unplanned = state.build_plan(self._before, self._late_layers)
        built = tuple(f"{path}." for path in (*plan["layers"], *plan["optimizers"]))
        made = [path for path in others if path not in self._before.objects and not path.startswith(built)]
        values = state.plain_values()
        changed = changed_values(self._plain_values, values)
        self._plain_values = values | self._plain_values  # With those that this epoch has made.
        for name, reason in {
            **dict.fromkeys(unreadable, "it holds no numbers"),
            **dict.fromkeys((*unplanned, *made), "the first step makes it; make and build it before `fit`"),
            **dict.fromkeys(state.only_in_sets(), "a set has no order; keep its variables in a list"),
            **dict.fromkeys(changed, "it changes and is no variable; make it one with add_weight"),
        }.items():
            self._info_once(not_restored(name, reason))
        metadata = {**progress, "callbacks": states, "others": list(others), "build": plan}
        # As training began, without what the checkpoint or a callback has changed.
        metadata |= {"optimizer": _classes_of(optimizer), "rate": self._rate, "trainable": self._trainable}
        metadata["finite_logs"] = sorted(self._finite_logs)
        return Checkpoint(epoch, "fit", groups, metadata | {"versions": versions(), "device": device_name()})

    def restore(self, checkpoint: Checkpoint, continues: bool) -> None:
        """Build what the first step would build, and restore all variables and the callbacks' states.

        Args:
            checkpoint: as `make` returned it, in this process or another.
            continues: whether any epoch is left to train.

        Raises:
            Error: the checkpoint is another model's.
            AttributeError, LookupError, TypeError, ValueError: it is not what `make` returns.
        """
        plan, arrays, optimizer = checkpoint.metadata["build"], checkpoint.arrays, self._model.optimizer
        former, classes = checkpoint.metadata["optimizer"], _classes_of(optimizer)
        if former != classes:
            raise Error(
                f"the checkpoint's optimizer is {former!r:.80}, now {classes!r}; use another folder for another one."
            )
        self._late_layers |= plan["layers"].keys()
        state = FitState.of(self._model).build_layers(plan)
        before, now = checkpoint.metadata["trainable"], state.trainable()
        is_changed = any(before[path] != now[path] for path in before.keys() & now.keys())
        if is_changed and state.trains_others(plan):
            raise Error(
                "other variables are trained now than in the checkpoint, as after layers were frozen or unfrozen; use "
                "another folder for another phase of the training."
            )
        state = state.build_optimizers(plan)
        groups = arrays.get("model", []), arrays.get("optimizer", [])
        if optimizer and not optimizer.built and len(groups[1]) > len(optimizer.variables):
            optimizer.build(self._model.trainable_variables)  # Before the restore, and not in the first step.
        variables = self._model.variables, optimizer.variables if optimizer else []
        names = "weights", "optimizer variables"
        for of_group in zip(variables, groups, names, strict=True):
            check_arrays(*of_group)
        rate = _rate_of(optimizer)
        for of_group in zip(variables, groups, names, strict=True):
            assign_arrays(*of_group)
        if continues and self._rate != checkpoint.metadata["rate"] and _rate_of(optimizer) != rate:
            self._info(
                f"The learning rate stays {_rate_of(optimizer):g}, from the checkpoint; {rate:g} is not used. To "
                "change it within a run, use keras.callbacks.LearningRateScheduler."
            )
        for layer in state.objects.values():
            if isinstance(layer, keras.layers.Normalization):
                layer.finalize_state()  # It computes with values that it has derived from its variables.
                self._model.test_function = self._model.predict_function = None  # They hold the former values.
        missing = state.assign(dict(zip(checkpoint.metadata["others"], arrays.get("others", []), strict=True)))
        if missing:
            self._info(f"The model has no variable for {', '.join(missing[:5])}: their values are not restored.")
        restore_states(self._callbacks, checkpoint, self._info, continues)
        self._finite_logs |= {*checkpoint.metadata["finite_logs"]}

    def _report_divergence(self, epoch, names):
        if not self._diverged:
            self._info(
                f"{', '.join(names[:3])}: NaN or infinite in epoch {epoch}. No checkpoint is written until all is "
                "finite again; the last one is kept. Try a lower learning rate."
            )
        self._diverged = True


def _with_inner(optimizer):
    """Return an optimizer and those that it wraps, such as the one that gets a scaled loss; or an empty list."""
    return [optimizer, *_with_inner(getattr(optimizer, "inner_optimizer", None))] if optimizer is not None else []


def _classes_of(optimizer):
    return ", ".join(type(one).__name__ for one in _with_inner(optimizer))


def _rate_of(optimizer):
    """Return the learning rate, or None if it follows from a schedule."""
    rate = next((getattr(one, "_learning_rate", None) for one in reversed(_with_inner(optimizer))), None)
    return float(ops.convert_to_numpy(rate)) if isinstance(rate, keras.Variable) else None
