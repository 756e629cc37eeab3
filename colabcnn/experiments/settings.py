"""Experiments as JSON types and back: what `run.json` and checkpoints hold of them."""

from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from colabcnn.errors import Error


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
    return {name: value for name, value in _without_defaults(experiment).items() if name != "kind"}


def as_json(value: Any) -> Any:
    """Return a field's value as JSON types; a dataclass has its class's name as `kind`."""
    if is_dataclass(value):
        named = {f.name: as_json(getattr(value, f.name)) for f in fields(value)}
        return {"kind": type(value).__name__, **named}
    return list(value) if isinstance(value, tuple) else value


def _without_defaults(value):
    if not is_dataclass(value):
        return as_json(value)
    changed = [f.name for f in fields(value) if f.compare and getattr(value, f.name) != f.default]
    return {"kind": type(value).__name__, **{name: _without_defaults(getattr(value, name)) for name in changed}}


def make(kinds: dict[str, type], values: Any, name: str) -> Any:
    """Return a dataclass from its fields as JSON types, with the dataclasses in them.

    Args:
        kinds: the classes by name; `values` names one of several as its `kind`.
        values: JSON types, which may come from someone else.
        name: what a message calls it.

    Raises:
        Error: a field is unknown or missing, or its value is wrong.
        TypeError: a list is something else.
    """
    if not isinstance(values, dict):
        raise Error(f"{name} is {values!r:.200}; expected its fields by name.")
    kind = values.get("kind", next(iter(kinds)))
    if not isinstance(kind, str) or kind not in kinds:
        raise Error(f"{name} is of kind {kind!r:.50}, unknown to this version; update colabcnn.")
    cls, made = kinds[kind], {key: value for key, value in values.items() if key != "kind"}
    hints, known = get_type_hints(cls), [f for f in fields(cls) if f.compare]
    if unknown := made.keys() - {f.name for f in known}:
        raise Error(f"{name} has {sorted(map(str, unknown))}, unknown to this version; update colabcnn.")
    if missing := {f.name for f in known if f.default is MISSING} - made.keys():
        raise Error(f"{name} lacks {sorted(missing)}; expected all fields of {cls.__name__}.")
    for key, value in made.items():
        parts = [hints[key], *get_args(hints[key])]
        nested = {part.__name__: part for part in parts if isinstance(part, type) and is_dataclass(part)}
        if nested and get_origin(hints[key]) is tuple:
            made[key] = tuple(make(nested, member, f"one of its {key}") for member in value)
        elif nested and (value is not None or type(None) not in parts):
            made[key] = make(nested, value, f"its {key}")
    return cls(**made)
