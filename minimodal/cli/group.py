"""A command that has commands: `minimodal volume ls`. And what such commands share."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import subcommands
from .failure import UsageError
from .subcommands import Sub

Command = Callable[[list[str]], int]


def dispatch(group: str, commands: Mapping[str, tuple[Command, str]], arguments: list[str]) -> int:
    """Run the command that the first argument names, with the objects of the home at hand."""
    subs = {name: Sub(_with_objects(run), about) for name, (run, about) in commands.items()}
    first = next(iter(commands))
    return subcommands.dispatch(group, subs, arguments, f"minimodal {group} {first}")


def _with_objects(run: Command) -> Command:
    def command(rest: list[str]) -> int:
        from .state import home_objects

        if "-h" in rest or "--help" in rest:
            return run(rest)
        with home_objects():
            try:
                return run(rest)
            except OSError as error:
                if isinstance(error, BrokenPipeError):
                    raise
                raise UsageError(str(error), code=1) from error

    return command


def show_rows(rows: Sequence[Mapping[str, Any]], as_json: bool, empty: str) -> None:
    """A listing: aligned columns for people, one JSON list for programs."""
    if as_json:
        print(json.dumps({"schema": 1, "items": [dict(row) for row in rows]}, indent=2))
        return
    if not rows:
        print(empty, file=sys.stderr)
        return
    shown = [{key: _shown(key, value) for key, value in row.items()} for row in rows]
    widths = {key: max(len(row[key]) for row in shown) for key in shown[0]}
    for row in shown:
        print("  ".join(f"{value:<{widths[key]}}" for key, value in row.items()).rstrip())


def _shown(key: str, value: Any) -> str:
    if key in ("created", "modified"):
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(value)) if value else "-"
    return "-" if value is None else printable(str(value))


def printable(text: str) -> str:
    """A name that would move the cursor or break the line is shown escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def names_of(kind: Any) -> list[dict[str, Any]]:
    """Rows of `X.objects`."""
    return [
        {"name": info.name, "created": info.created_at, "id": info.object_id}
        for info in kind.objects.infos()
    ]


def confirm(question: str, yes: bool) -> None:
    """Ask on a terminal; elsewhere `--yes` must have been given. Raises UsageError."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{question} Nobody can be asked here.", hint="--yes")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was changed.", code=1)
