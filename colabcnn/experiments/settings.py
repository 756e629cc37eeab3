"""Experiments as JSON types and back: what `run.json` and checkpoints hold of them."""

import functools
from collections import Counter
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


def without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of a JSON object as a dict, for `object_pairs_hook`.

    Raises:
        Error: a name is in it twice.
    """
    if len(named := dict(pairs)) < len(pairs):
        ((repeated, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise Error(f"it has {repeated!r:.80} twice")
    return named


def as_json(value: Any, changed_only: bool = False) -> Any:
    """Return a field's value as JSON types: of a dataclass its class's name as `kind`, and the fields that it compares.

    With `changed_only`, fields at their defaults are left out.
    """
    if not is_dataclass(value):
        return list(value) if isinstance(value, tuple) else value
    named = {f.name: (getattr(value, f.name), f.default) for f in fields(value) if f.compare}
    shown = {name: part for name, (part, default) in named.items() if part != default or not changed_only}
    return {"kind": type(value).__name__, **{name: as_json(part, changed_only) for name, part in shown.items()}}


def make(kinds: type | dict[str, type], values: Any, name: str) -> Any:
    """Return a dataclass from its fields as JSON types, with the dataclasses in them.

    Args:
        kinds: the class; or several by name, one of which `values` must name as its `kind`.
        values: JSON types, which may come from someone else.
        name: what a message calls it.

    Raises:
        Error: a field is unknown or missing, or its value is wrong.
        TypeError: something else than a list where a list is expected.
    """
    if not isinstance(values, dict):
        raise Error(f"{name} is {values!r:.80}; expected its fields by name.")
    made = dict(values)
    if isinstance(kinds, dict):
        kind = made.pop("kind", None)
        if not isinstance(kind, str) or kind not in kinds:
            raise Error(
                f"{name} is of kind {kind!r:.50}, unknown to this version: update colabcnn, or use "
                f"{' or '.join(kinds)}."
            )
        cls = kinds[kind]
    else:
        cls = kinds
    hints, known = _hints_of(cls), [f for f in fields(cls) if f.compare]
    if unknown := made.keys() - {f.name for f in known}:
        raise Error(
            f"{name} has fields that are unknown to this version, {sorted(unknown)!r:.200}: update colabcnn, or use "
            f"only {', '.join(f.name for f in known)}."
        )
    if missing := {f.name for f in known if f.default is MISSING} - made.keys():
        raise Error(f"{name} lacks {sorted(missing)}; expected all fields of {cls.__name__}.")
    for key, value in made.items():
        parts = [part for part in (hints[key], *get_args(hints[key])) if isinstance(part, type)]
        nested = [part for part in parts if is_dataclass(part)]
        if nested and get_origin(hints[key]) is tuple:
            made[key] = tuple(make(nested[0], member, f"one of its {key}") for member in value)
        elif nested and (value is not None or type(None) not in parts):
            named = {part.__name__: part for part in nested}
            made[key] = make(named if getattr(cls, "PARTS_HAVE_KINDS", False) else nested[0], value, f"its {key}")
    return cls(**made)


_hints_of = functools.cache(get_type_hints)
