"""Listings: aligned columns for people, one JSON object for programs, and times for both."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from .failure import UsageError
from .terminal import paint

TIMES = frozenset(
    "created started finished ended expires at now last next upcoming opened last_used modified".split()
)
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


def print_table(headers: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str = "") -> None:
    """Columns as wide as their longest cell; `empty` is said on stderr where there is no row."""
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        if empty:
            print(empty, file=sys.stderr)
        return
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    print(paint(_line([name.upper() for name in headers], widths), "dim", sys.stdout))
    for row in cells:
        print(_line(row, widths))


def show(
    options: Any,
    schema: str,
    fields: Mapping[str, Any],
    headers: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    empty: str = "",
) -> int:
    """What a listing ends with: `fields` as JSON where `--json` was given, else the table. 0."""
    if options.json:
        print_json(schema, fields)
    else:
        print_table(headers, rows, empty=empty)
    return 0


def print_json(schema: str, fields: Mapping[str, Any]) -> None:
    """One object; times are ISO 8601 in UTC."""
    shown = {"schema": f"minimodal.{schema}/1", **{k: _plain(k, v) for k, v in fields.items()}}
    print(json.dumps(shown, indent=2))


def ago(moment: float | None) -> str:
    """How long ago a time was, in one unit; "in 3 m" where it is to come."""
    if moment is None:
        return "-"
    seconds = time.time() - moment
    return f"in {span(-seconds)}" if seconds < -0.5 else span(max(seconds, 0.0))


def span(seconds: float) -> str:
    for unit, size, limit in (("s", 1, 120), ("m", 60, 7200), ("h", 3600, 172_800)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}" if seconds >= 1 else f"{seconds * 1e3:.0f} ms"
    return f"{seconds / 86400:.0f} d"


def shown_bytes(count: float) -> str:
    """A size for people: 812 B, 3.4 MB, 1.2 GB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="milliseconds")


def since(text: str) -> float:
    """The time that "30m", "2h", "3d" before now is, or an ISO 8601 date. Raises UsageError."""
    number, unit = text[:-1], text[-1:]
    if unit in UNITS and number.replace(".", "", 1).isdigit():
        return time.time() - float(number) * UNITS[unit]
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError:
        raise UsageError(
            f"{text!r} is no time.", hint="30s, 15m, 2h, 3d, or 2026-01-31T12:00"
        ) from None


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _cell(value: Any) -> str:
    """What would move the cursor or break the line is shown escaped."""
    text = "-" if value is None or value == "" else str(value).replace("\n", " ")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(k, v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(name, each) for each in value]
    if name in TIMES and isinstance(value, int | float) and not isinstance(value, bool):
        return iso(value)
    return value
