"""What the terminal can show: colour and animation, by its own word and the user's variables.

NO_COLOR and FORCE_COLOR decide first (no-color.org), then TERM=dumb, then whether it is a terminal.
"""

from __future__ import annotations

import os
from typing import TextIO

CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}

SOURCES = ("cyan", "green", "yellow", "bold cyan", "bold green", "bold yellow")


def is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def wants_color(stream: TextIO) -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def wants_motion(stream: TextIO) -> bool:
    """Whether a live display may be drawn: never in CI, never on what is no terminal."""
    dumb = os.environ.get("TERM") in ("dumb", None)
    return is_terminal(stream) and not dumb and not os.environ.get("CI")


def paint(text: str, style: str, stream: TextIO) -> str:
    """`text` in a style such as "bold red", where `stream` shows colours."""
    if not wants_color(stream):
        return text
    codes = ";".join(CODES[word] for word in style.split())
    return f"\x1b[{codes}m{text}\x1b[0m"


def paint_source(name: str, stream: TextIO) -> str:
    """What stands before a line of a function's output; each function has its colour."""
    return paint(f"{name} |", SOURCES[sum(name.encode()) % len(SOURCES)], stream)
