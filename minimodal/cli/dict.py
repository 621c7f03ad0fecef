"""`minimodal dict`: the named dicts of this home and their entries."""

from __future__ import annotations

from itertools import islice

from minimodal.shared import Dict

from .failure import UsageError
from .group import confirm, dispatch, object_commands, parser_of, show_rows
from .parser import add_json, add_yes


def main(arguments: list[str]) -> int:
    return dispatch("dict", COMMANDS, arguments)


def _items(arguments: list[str]) -> int:
    parser = parser_of("dict", "items", "Show entries, as Python writes them.", "20")
    parser.add_argument("count", nargs="?", type=int, default=20, help="how many; 0: all")
    add_json(parser)
    options = parser.parse(arguments)
    items = islice(Dict.from_name(options.name).items(), options.count or None)
    rows = [{"key": repr(key), "value": repr(value)} for key, value in items]
    show_rows(rows, options.json, "it is empty")
    return 0


def _get(arguments: list[str]) -> int:
    parser = parser_of("dict", "get", "Show the value of a key that is a text.", "KEY")
    parser.add_argument("key")
    options = parser.parse(arguments)
    try:
        print(Dict.from_name(options.name)[options.key])
    except KeyError:
        raise UsageError(f"{options.name} has no key {options.key!r}.", code=1) from None
    return 0


def _clear(arguments: list[str]) -> int:
    parser = parser_of("dict", "clear", "Remove all entries.", "--yes")
    add_yes(parser)
    options = parser.parse(arguments)
    shared = Dict.from_name(options.name)
    confirm(f"Remove all {shared.len()} entries of {options.name!r}?", options.yes)
    shared.clear()
    return 0


COMMANDS = {
    **object_commands("dict", Dict, lambda shared: f" with {shared.len()} entries"),
    "items": (_items, "show entries"),
    "get": (_get, "show one value"),
    "clear": (_clear, "remove all entries"),
}
