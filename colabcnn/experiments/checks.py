"""Checks of values, which name them as the caller does, and of a dataclass's fields by their annotations."""

import functools
import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from colabcnn.errors import Error

# JSON readers and NumPy have no larger whole numbers.
MAX_COUNT = 2**63 - 1
MAX_SEEDS = 10_000


def check_fields(instance: Any) -> None:
    """Check the fields of a frozen dataclass by annotations such as `Annotated[int, check_count, 0]`.

    It is a dataclass's `__post_init__`. A field whose type is a dataclass, or one of several, holds such an instance.
    NumPy's numbers become Python's, which JSON has.
    """
    for name, parts in _types_of(type(instance)).items():
        value = getattr(instance, name)
        value = tuple(map(_plain, value)) if isinstance(value, (tuple, list)) else _plain(value)
        object.__setattr__(instance, name, value)
        if any(map(is_dataclass, parts)):
            check_kind(name, value, *parts)
        for part in parts:
            if (value is not None or NoneType not in parts) and (check := getattr(part, "__metadata__", ())):
                check[0](name, value, *check[1:])


@functools.cache
def _types_of(cls):
    """Return a dict from each field to its type, or to the types of a union, with their annotations."""
    hints = get_type_hints(cls, include_extras=True)
    unions = Union, UnionType
    return {name: get_args(hint) if get_origin(hint) in unions else (hint,) for name, hint in hints.items()}


def _plain(value):
    return value.item() if type(value).__module__ == "numpy" and getattr(value, "shape", None) == () else value


def check_choice(name: str, value: Any, *choices: Any) -> None:
    """Raise an `Error` unless the value is among the choices."""
    if value not in choices:
        raise Error(f"{name} is {value!r:.80}; expected one of {', '.join(map(repr, choices))}.")


def check_kind(name: str, value: Any, *kinds: type) -> None:
    """Raise an `Error` unless the value is an instance of one of the kinds."""
    if not isinstance(value, kinds):
        words = {NoneType: "None", bool: "True or False"}
        expected = " or ".join(words.get(kind, kind.__name__) for kind in kinds)
        raise Error(f"{name} is {value!r:.80}; expected {expected}.")


def check_count(name: str, value: Any, least: int = 1, most: int = MAX_COUNT) -> None:
    """Raise an `Error` unless the value is a whole number from `least` to `most`."""
    value = _plain(value)
    if type(value) is not int or not least <= value <= most:
        is_above = type(value) is int and value > most
        end = f" to {most}" if most != MAX_COUNT or is_above else ""
        raise Error(f"{name} is {value!r:.80}; expected a whole number from {least}{end}.")


def check_all(name: str, values: Any, check: Any, *limits: Any) -> None:
    """Raise an `Error` unless there are 1 to 100 values in a tuple, and each passes the check."""
    if not isinstance(values, tuple) or not 1 <= len(values) <= 100:
        raise Error(f"{name} is {values!r:.80}; expected 1 to 100 values in a tuple or a list.")
    for value in values:
        check(f"a value of {name}", value, *limits)


def check_text(name: str, value: Any, most: int = 0, form: str = "") -> None:
    """Raise an `Error` unless the value is a str; with `most`, one printable line of so many characters or fewer.

    With `form`, a regular expression, it must match as a whole.
    """
    # A control character acts on a terminal, and half a surrogate pair cannot be printed.
    fits = isinstance(value, str) and (not most or (len(value) <= most and value.isprintable()))
    if not fits or (form and not re.fullmatch(form, value)):
        expected = f"one line of at most {most} printable characters" if most else "a text"
        raise Error(f"{name} is {value!r:.80}; expected {expected}{f' that match {form}' if form else ''}.")


def check_texts(name: str, value: Any, most: int = 0) -> None:
    """Raise an `Error` unless the value is a dict of a few texts by name."""
    check_kind(name, value, dict)
    check_count(f"the length of {name}", len(value), 0, 20)
    for text in (*value, *value.values()):
        check_text(name, text, most)


def parse_seeds(seeds: str | int | Iterable[int]) -> list[int]:
    """Return the seeds that a text such as "0:5" (0 to 4) or "3", a number or several numbers give.

    Raises:
        Error: there is none, or more than `MAX_SEEDS`.
    """
    found: Any = seeds if isinstance(seeds, Iterable) else [seeds]
    if isinstance(seeds, str):
        match = re.fullmatch(r"(\d{1,9})(?::(\d{1,9}))?", seeds)
        found = range(int(match[1]), int(match[2] or int(match[1]) + 1)) if match else []
    found = list(itertools.islice(found, MAX_SEEDS + 1))
    if not 1 <= len(found) <= MAX_SEEDS:
        raise Error(
            f"seeds is {seeds!r:.80}; expected A:B with B above A, such as 0:5 for the seeds 0 to 4, or one seed; at "
            f"most {MAX_SEEDS:,} of them."
        )
    return found


def check_number(name: str, value: Any, low: float, high: float = math.inf, expected: str = "") -> None:
    """Raise an `Error` unless the value is a number from `low` to `high`; `expected` describes it in other words."""
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        end = "" if high == math.inf else f" to {high:g}"
        raise Error(f"{name} is {value!r:.80}; expected {expected or f'a number from {low:g}{end}'}.")


Flag = Annotated[bool, check_kind, bool]
Text = Annotated[str, check_text]
