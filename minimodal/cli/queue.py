"""`minimodal queue`: the named queues of this home and their items."""

from __future__ import annotations

from itertools import islice

from minimodal.shared_queue import Queue

from .group import confirm, dispatch, object_commands, parser_of, show_rows
from .parser import Parser, add_json, add_yes


def main(arguments: list[str]) -> int:
    return dispatch("queue", COMMANDS, arguments)


def _parser(command: str, about: str, example: str) -> Parser:
    parser = parser_of("queue", command, about, example)
    parser.add_argument("-p", "--partition", help="of this partition")
    return parser


def _peek(arguments: list[str]) -> int:
    about = "Show the first items, as Python writes them, and leave them there."
    parser = _parser("peek", about, "10")
    parser.add_argument("count", nargs="?", type=int, default=1, help="how many; 0: all")
    add_json(parser)
    options = parser.parse(arguments)
    items = Queue.from_name(options.name).iterate(partition=options.partition)
    rows = [{"item": repr(item)} for item in islice(items, options.count or None)]
    show_rows(rows, options.json, "it is empty")
    return 0


def _len(arguments: list[str]) -> int:
    parser = _parser("len", "How many items there are.", "--total")
    parser.add_argument("-t", "--total", action="store_true", help="in all partitions")
    options = parser.parse(arguments)
    queue = Queue.from_name(options.name)
    print(queue.len(partition=options.partition, total=options.total))
    return 0


def _clear(arguments: list[str]) -> int:
    parser = _parser("clear", "Remove items.", "--all --yes")
    parser.add_argument("-a", "--all", action="store_true", help="of all partitions")
    add_yes(parser)
    options = parser.parse(arguments)
    queue = Queue.from_name(options.name)
    count = queue.len(partition=options.partition, total=options.all)
    confirm(f"Remove {count} items of {options.name!r}?", options.yes)
    queue.clear(partition=options.partition, all=options.all)
    return 0


COMMANDS = {
    **object_commands("queue", Queue, lambda queue: f" with {queue.len(total=True)} items"),
    "peek": (_peek, "show the first items"),
    "len": (_len, "how many items there are"),
    "clear": (_clear, "remove items"),
}
