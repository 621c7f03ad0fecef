"""A command that has commands: `minimodal volume ls`. And what such commands share."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import subcommands
from .failure import UsageError
from .listing import print_json, print_table
from .parser import Parser, add_yes
from .subcommands import Sub, listing_parser

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


def parser_of(group: str, command: str, about: str, example: str = "") -> Parser:
    """The parser of a command about one object, which is its argument `name`."""
    words = f"{command} NAME {example}".rstrip()
    parser = Parser(f"minimodal {group} {command}", about, f"minimodal {group} {words}")
    parser.add_argument("name")
    return parser


def list_command(group: str, kind: Any, first: str) -> Command:
    """`list`: the named objects of one kind. `first`: the command that makes the first one."""

    def run(arguments: list[str]) -> int:
        about = f"List the named {group}s, newest first."
        options = listing_parser(f"{group} list", about, f"{group} list --json").parse(arguments)
        rows = [
            {"name": info.name, "created": info.created_at, "id": info.object_id}
            for info in kind.objects.infos()
        ]
        show_rows(rows, options.json, f"there is no {group} yet: minimodal {group} {first}")
        return 0

    return run


def create_command(group: str, kind: Any) -> Command:
    """`create`: a new, empty object."""

    def run(arguments: list[str]) -> int:
        kind.objects.create(
            parser_of(group, "create", f"Make an empty {group}.").parse(arguments).name
        )
        return 0

    return run


def delete_command(group: str, kind: Any, contents: Callable[[Any], str]) -> Command:
    """`delete`: an object and what is in it; `contents` says what that is."""

    def run(arguments: list[str]) -> int:
        parser = parser_of(group, "delete", f"Delete a {group} and all that is in it.", "--yes")
        add_yes(parser)
        options = parser.parse(arguments)
        handle = kind.from_name(options.name)
        handle.hydrate()  # it must be there before anybody is asked about it
        confirm(f"Delete the {group} {options.name!r}{contents(handle)}?", options.yes)
        kind.objects.delete(options.name)
        return 0

    return run


def object_commands(
    group: str, kind: Any, contents: Callable[[Any], str]
) -> dict[str, tuple[Command, str]]:
    """What each kind that starts empty has: `list`, `create` and `delete`."""
    return {
        "list": (list_command(group, kind, "create NAME"), f"list the {group}s"),
        "create": (create_command(group, kind), "make an empty one"),
        "delete": (delete_command(group, kind, contents), "delete it"),
    }


def show_rows(rows: Sequence[Mapping[str, Any]], as_json: bool, empty: str) -> None:
    """A listing: aligned columns for people, one JSON list for programs."""
    if as_json:
        print_json("items", {"items": rows})
        return
    cells = [[_shown(key, value) for key, value in row.items()] for row in rows]
    print_table(list(rows[0]) if rows else (), cells, empty=empty)


def _shown(key: str, value: Any) -> Any:
    if key in ("created", "modified"):
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(value)) if value else None
    return value


def confirm(question: str, yes: bool) -> None:
    """Ask on a terminal; elsewhere `--yes` must have been given. Raises UsageError."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{question} Nobody can be asked here.", hint="--yes")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was changed.", code=1)
