"""The grammar of a cron expression: five fields, checked without any library.

Owns what is accepted and the messages of what isn't. When an expression fires is engine/cron.py's;
the tests hold this grammar against that library, so that what passes here works there.

A field is a list of `*`, `n`, `n-m`, each with an optional `/step`; `n/step` runs to the field's end.
Months and days of the week have English names of three letters; Sunday is 0 and 7. Also `?` for `*`
and `L` (the last) as a day of month, `5#2` (the second Friday) as a day of the week.
"""

from __future__ import annotations

from typing import NamedTuple

from .errors import InvalidError

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)  # days of each month, in a leap year


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()  # of low, low + 1, …


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)


def check(expression: str) -> str:
    """The expression in normal form: five fields with one space between, aliases and `?` replaced.

    Raises InvalidError that names the field, also for a date that never comes (30 February).
    """
    if not isinstance(expression, str):
        raise InvalidError(f"Cron: the schedule must be a text of five fields, not {expression!r}")
    words = ALIASES.get(expression.strip().lower(), expression).split()
    if len(words) != len(FIELDS):
        seconds = " (there is no field for seconds)" if len(words) == 6 else ""
        raise InvalidError(
            f"Cron: {expression!r} has {len(words)} fields instead of five{seconds}: "
            "minute, hour, day of month, month, day of week"
        )
    for index in (2, 4):
        words[index] = "*" if words[index] == "?" else words[index]
    values = [_values(expression, field, word) for field, word in zip(FIELDS, words, strict=True)]
    days, months = values[2:4]
    if "#" in words[4] and words[2] != "*":
        raise InvalidError(f"Cron: {expression!r}: n#m goes only with * as the day of month")
    # With any choice of weekdays, even 0-6 or */1, a day needs to match only one of the two fields.
    if words[4] == "*" and days and not any(min(days) <= _LONGEST[month - 1] for month in months):
        raise InvalidError(f"Cron: {expression!r} never comes: no such day in that month")
    return " ".join(words)


def _values(expression: str, field: _Field, word: str) -> set[int]:
    """All values that a field allows; empty for those that only a calendar can tell (`L`, `5#2`)."""
    values: set[int] = set()
    special = False
    for part in word.split(","):
        if field.name == "day of month" and part.lower() == "l":
            special = True
            continue
        if field.name == "day of week" and "#" in part:
            day, _, week = part.partition("#")
            _number(expression, field, day)
            if week not in ("1", "2", "3", "4", "5"):
                raise _bad(expression, field, part, "the week after # is 1 to 5")
            special = True
            continue
        values |= _range(expression, field, part)
    if special and field.name == "day of month":
        return set()  # the last day always comes
    if special and values:
        raise _bad(expression, field, word, "n#m and plain days can't be mixed")
    if field.name == "day of week" and 7 in values:
        values = values - {7} | {0}
    return values


def _range(expression: str, field: _Field, part: str) -> set[int]:
    span, slash, step_text = part.partition("/")
    step = 1
    if slash:
        if not step_text.isascii() or not step_text.isdigit() or int(step_text) < 1:
            raise _bad(expression, field, part, "the step after / is a whole number from 1")
        step = int(step_text)
        if step > field.high:
            raise _bad(expression, field, part, f"the step is larger than {field.high}")
    if span == "*":
        low, high = field.low, field.high
        if field.name == "day of week":
            high = 6
    else:
        first, dash, last = span.partition("-")
        low = _number(expression, field, first)
        high = _number(expression, field, last) if dash else (field.high if slash else low)
        if low > high:
            raise _bad(expression, field, part, "the range ends before it begins")
    return set(range(low, high + 1, step))


def _number(expression: str, field: _Field, text: str) -> int:
    if text.lower() in field.names:
        return field.low + field.names.index(text.lower())
    if not text.isascii() or not text.isdigit():
        raise _bad(expression, field, text, f"it is neither * nor a number{_or_name(field)}")
    number = int(text)
    if not field.low <= number <= field.high:
        raise _bad(expression, field, text, f"it is from {field.low} to {field.high}")
    return number


def _or_name(field: _Field) -> str:
    return f" nor a name such as {field.names[1].upper()}" if field.names else ""


def _bad(expression: str, field: _Field, text: str, why: str) -> InvalidError:
    return InvalidError(f"Cron: {expression!r}: {text!r} is no {field.name}: {why}")
