"""Experiments as JSON types and back: what `run.json` and checkpoints hold of them."""

from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from colabcnn.errors import Error


def take_plain_numbers(instance: Any) -> None:
    """Replace NumPy's numbers in a dataclass's fields by Python's, which JSON has; call it in `__post_init__`."""
    for name in (f.name for f in fields(instance)):
        value = getattr(instance, name)
        if isinstance(value, (tuple, list)):
            object.__setattr__(instance, name, tuple(map(_plain, value)))
        else:
            object.__setattr__(instance, name, _plain(value))


def _plain(value):
    return value.item() if type(value).__module__ == "numpy" and getattr(value, "shape", None) == () else value


def flatten_settings(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings with nested ones as names such as "optimizer.momentum"."""
    flat = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= flatten_settings(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def changed_settings(experiment: Any) -> dict[str, Any]:
    """Return an `Experiment`'s settings that differ from their defaults: a new field with a default changes nothing."""
    defaults = {f.name: as_json(f.default) for f in fields(experiment) if f.default is not MISSING}
    changed = {}
    for name, value in experiment.settings().items():
        if name not in defaults or value != defaults[name]:
            changed[name] = _without_defaults(getattr(experiment, name))
    return changed


def as_json(value: Any) -> Any:
    """Return a field's value as JSON types; a dataclass has its class's name as `kind`."""
    if is_dataclass(value):
        named = {f.name: as_json(getattr(value, f.name)) for f in fields(value)}
        return {"kind": type(value).__name__, **named}
    return list(value) if isinstance(value, tuple) else value


def _without_defaults(value):
    if not is_dataclass(value):
        return as_json(value)
    changed = {f.name: getattr(value, f.name) for f in fields(value) if getattr(value, f.name) != f.default}
    return {"kind": type(value).__name__, **changed}


def make_nested(name: str, settings: Any, kinds: tuple[type, ...]) -> Any:
    """Return the nested dataclass, of one of the kinds, that `as_json` has described; `name` is the field's."""
    by_name = {kind.__name__: kind for kind in kinds}
    kind = settings.get("kind") if isinstance(settings, dict) else None
    if kind not in by_name:
        raise Error(f"the experiment's {name} is of kind {kind!r:.50}, unknown to this version; update colabcnn.")
    return make(by_name[kind], {key: value for key, value in settings.items() if key != "kind"}, f"its {name}")


def make(cls: Any, settings: dict[str, Any], name: str) -> Any:
    """Return a dataclass of its fields by name; `name` is what a message calls it."""
    known = {f.name for f in fields(cls)} - {"reported"}
    if unknown := set(settings) - known:
        raise Error(f"{name} has {sorted(map(str, unknown))}, unknown to this version; update colabcnn.")
    if missing := {f.name for f in fields(cls) if f.default is MISSING and f.name not in settings}:
        raise Error(f"{name} lacks {sorted(missing)}; expected all settings of {cls.__name__}.")
    return cls(**settings)
