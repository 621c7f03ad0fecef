"""`minimodal dict`: the named dicts of this home and their entries."""

from __future__ import annotations

from itertools import islice

from minimodal.shared import Dict

from .failure import UsageError
from .group import confirm, dispatch, names_of, show_rows
from .parser import Parser


def main(arguments: list[str]) -> int:
    return dispatch("dict", COMMANDS, arguments)


def _list(arguments: list[str]) -> int:
    parser = Parser("minimodal dict list", "List the named dicts, newest first.")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse(arguments)
    show_rows(names_of(Dict), options.json, "there is no dict yet: minimodal dict create NAME")
    return 0


def _create(arguments: list[str]) -> int:
    parser = Parser("minimodal dict create", "Make an empty dict.")
    parser.add_argument("name")
    Dict.objects.create(parser.parse(arguments).name)
    return 0


def _items(arguments: list[str]) -> int:
    parser = Parser("minimodal dict items", "Show entries.", "minimodal dict items results 20")
    parser.add_argument("name")
    parser.add_argument("count", nargs="?", type=int, default=20, help="how many; 0: all")
    parser.add_argument("--json", action="store_true", help="for programs; as Python writes them")
    options = parser.parse(arguments)
    items = islice(Dict.from_name(options.name).items(), options.count or None)
    rows = [{"key": repr(key), "value": repr(value)} for key, value in items]
    show_rows(rows, options.json, "it is empty")
    return 0


def _get(arguments: list[str]) -> int:
    parser = Parser("minimodal dict get", "Show the value of a key that is a text.")
    parser.add_argument("name")
    parser.add_argument("key")
    options = parser.parse(arguments)
    try:
        print(Dict.from_name(options.name)[options.key])
    except KeyError:
        raise UsageError(f"{options.name} has no key {options.key!r}.", code=1) from None
    return 0


def _clear(arguments: list[str]) -> int:
    parser = Parser("minimodal dict clear", "Remove all entries.")
    parser.add_argument("name")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    options = parser.parse(arguments)
    shared = Dict.from_name(options.name)
    confirm(f"Remove all {shared.len()} entries of {options.name!r}?", options.yes)
    shared.clear()
    return 0


def _delete(arguments: list[str]) -> int:
    parser = Parser("minimodal dict delete", "Delete a dict with all its entries.")
    parser.add_argument("name")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    options = parser.parse(arguments)
    count = Dict.from_name(options.name).len()
    confirm(f"Delete the dict {options.name!r} with {count} entries?", options.yes)
    Dict.objects.delete(options.name)
    return 0


COMMANDS = {
    "list": (_list, "list the dicts"),
    "create": (_create, "make an empty one"),
    "items": (_items, "show entries"),
    "get": (_get, "show one value"),
    "clear": (_clear, "remove all entries"),
    "delete": (_delete, "delete it"),
}
