"""Checks of single values; each names the value as its caller does."""

import math
import re
from collections.abc import Iterable
from typing import Any

from colabcnn.errors import Error

# JSON readers and NumPy have no larger whole numbers.
MAX_COUNT = 2**63 - 1


def check_choice(name: str, value: Any, choices: tuple) -> None:
    """Raise an `Error` unless the value is among the choices."""
    if value not in choices:
        raise Error(f"{name} is {value!r}; expected one of {', '.join(map(repr, choices))}.")


def is_count(value: Any, least: int = 1) -> bool:
    """Return whether a value is a whole number from `least` to `MAX_COUNT`."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= MAX_COUNT


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raise an `Error` unless the value is a whole number from `least`."""
    if not is_count(value, least):
        raise Error(f"{name} is {value!r:.80}; expected a whole number from {least}.")


def parse_seeds(seeds: str | int | Iterable[int]) -> list[int]:
    """Return the seeds that a text such as "0:5" (0 to 4) or "3", a number or several numbers give.

    Raises:
        Error: there is none.
    """
    found = [seeds] if isinstance(seeds, int) else [] if isinstance(seeds, str) else list(seeds)
    if isinstance(seeds, str) and (match := re.fullmatch(r"(\d{1,9})(?::(\d{1,9}))?", seeds)):
        first = int(match[1])
        found = list(range(first, int(match[2]) if match[2] else first + 1))
    if not found:
        raise Error(f"seeds is {seeds!r}; expected A:B with B above A, such as 0:5 for the seeds 0 to 4, or one seed.")
    return found


def check_number(name: str, value: Any, low: float, high: float = math.inf, expected: str = "") -> None:
    """Raise an `Error` unless the value is a number from `low` to `high`; `expected` describes it in other words."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        end = "" if high == math.inf else f" to {high:g}"
        raise Error(f"{name} is {value!r:.80}; expected {expected or f'a number from {low:g}{end}'}.")


def check_flag(name: str, value: Any) -> None:
    """Raise an `Error` unless the value is True or False."""
    if not isinstance(value, bool):
        raise Error(f"{name} is {value!r:.80}; expected True or False.")
