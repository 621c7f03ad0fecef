"""How the public objects look in a notebook: small tables of what is known without asking anybody.

All text is escaped. The plain form stays `repr`, which a notebook shows where it cannot show HTML.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

Value = str | int | float | Sequence[str] | None

SHOWN = 20  # entries of a list
HEAD = '<table class="minimodal"><caption style="text-align:left"><b>{}</b> {}</caption>'


def card(kind: str, name: str, rows: Mapping[str, Value]) -> str:
    """A table with a heading; rows whose value is None or empty are left out."""
    lines = [HEAD.format(html.escape(kind), html.escape(name))]
    for label, value in rows.items():
        if value is None or value == "" or (isinstance(value, Sequence) and not value):
            continue
        cell = _cell(value)
        lines.append(
            f'<tr><th style="text-align:left">{html.escape(label)}</th><td>{cell}</td></tr>'
        )
    return "".join([*lines, "</table>"])


def options_of(options: Any) -> dict[str, Value]:
    """The options that were given to a function, a class or a variant, as rows."""
    rows: dict[str, Value] = {}
    for name in ("cpu", "memory", "gpu", "timeout", "min_containers", "max_containers"):
        rows[name] = _short(getattr(options, name, None))
    for name in ("image", "retries", "schedule"):
        rows[name] = _short(getattr(options, name, None))
    return rows


def _short(value: Any) -> str | None:
    return None if value is None else str(value)


def _cell(value: Value) -> str:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return html.escape(str(value))
    shown = [html.escape(each) for each in value[:SHOWN]]
    more = [f"… {len(value) - SHOWN} more"] if len(value) > SHOWN else []
    return "<br>".join([*shown, *more])
