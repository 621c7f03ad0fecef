"""How the value of a setting is read, from a text or from TOML: pure functions that refuse by `Unfit`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class Unfit(Exception):
    """A reader's refusal; the text says what is allowed."""


def choice(*allowed: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if isinstance(value, str) and value.lower() in allowed:
            return value.lower()
        raise Unfit("one of " + ", ".join(allowed))

    return read


def text(value: Any) -> str:
    if isinstance(value, str) and value:
        return value
    raise Unfit("a text that is not empty")


def path(value: Any) -> Path:
    if isinstance(value, str | os.PathLike) and str(value):
        return Path(value).expanduser()
    raise Unfit("a path")


def flag(value: Any) -> bool:
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise Unfit("true or false")


def _number(value: Any, units: Mapping[str, float]) -> float:
    """A number, or a text of a number and one of `units`."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError
    if isinstance(value, str):
        digits = value.strip().rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
        unit = value.strip()[len(digits) :].lower()
        return float(digits) * (units[unit] if unit else 1)
    return float(value)


def whole(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        try:
            number = _number(value, {})
        except (ValueError, KeyError):
            number = -1
        if low <= number <= high and number == int(number):
            return int(number)
        raise Unfit(f"a whole number from {low} to {high}")

    return read


def seconds(value: Any) -> float:
    try:
        number = _number(value, {"s": 1, "m": 60, "h": 3600, "d": 86400})
        if 0 < number < float("inf"):
            return number
    except (ValueError, KeyError):
        pass
    raise Unfit("a time above zero: seconds, or a number with s, m, h or d, such as 12h")


def mebibytes(value: Any) -> int:
    units = {"m": 1, "mb": 1, "mib": 1, "g": 1024, "gb": 1024, "gib": 1024}
    try:
        number = _number(value, units)
        if 64 <= number < float("inf"):
            return int(number)
    except (ValueError, KeyError):
        pass
    raise Unfit("a size of at least 64 MiB: MiB, or a number with MiB or GiB, such as 4GiB")


def cores(value: Any) -> float:
    try:
        number = _number(value, {})
        if 0 < number < float("inf"):
            return number
    except (ValueError, KeyError):
        pass
    raise Unfit("a number of cores above zero, such as 1.5")


def names(value: Any) -> tuple[str, ...]:
    """A list of names, or a text with commas between them."""
    parts = value.split(",") if isinstance(value, str) else value
    if isinstance(parts, (list, tuple)) and all(isinstance(part, str) for part in parts):
        return tuple(part.strip().lower() for part in parts if part.strip())
    raise Unfit("names with commas between them")
