"""`minimodal queue`: the named queues of this home and their items."""

from __future__ import annotations

from itertools import islice

from minimodal.shared_queue import Queue

from .group import confirm, dispatch, names_of, show_rows
from .parser import Parser


def main(arguments: list[str]) -> int:
    return dispatch("queue", COMMANDS, arguments)


def _list(arguments: list[str]) -> int:
    parser = Parser("minimodal queue list", "List the named queues, newest first.")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse(arguments)
    show_rows(names_of(Queue), options.json, "there is no queue yet: minimodal queue create NAME")
    return 0


def _create(arguments: list[str]) -> int:
    parser = Parser("minimodal queue create", "Make an empty queue.")
    parser.add_argument("name")
    Queue.objects.create(parser.parse(arguments).name)
    return 0


def _peek(arguments: list[str]) -> int:
    parser = Parser("minimodal queue peek", "Show the first items and leave them there.")
    parser.add_argument("name")
    parser.add_argument("count", nargs="?", type=int, default=1, help="how many; 0: all")
    parser.add_argument("-p", "--partition", help="of this partition")
    parser.add_argument("--json", action="store_true", help="for programs; as Python writes them")
    options = parser.parse(arguments)
    items = Queue.from_name(options.name).iterate(partition=options.partition)
    rows = [{"item": repr(item)} for item in islice(items, options.count or None)]
    show_rows(rows, options.json, "it is empty")
    return 0


def _len(arguments: list[str]) -> int:
    parser = Parser("minimodal queue len", "How many items there are.")
    parser.add_argument("name")
    parser.add_argument("-p", "--partition", help="in this partition")
    parser.add_argument("-t", "--total", action="store_true", help="in all partitions")
    options = parser.parse(arguments)
    queue = Queue.from_name(options.name)
    print(queue.len(partition=options.partition, total=options.total))
    return 0


def _clear(arguments: list[str]) -> int:
    parser = Parser("minimodal queue clear", "Remove items.")
    parser.add_argument("name")
    parser.add_argument("-p", "--partition", help="of this partition")
    parser.add_argument("-a", "--all", action="store_true", help="of all partitions")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    options = parser.parse(arguments)
    queue = Queue.from_name(options.name)
    count = queue.len(partition=options.partition, total=options.all)
    confirm(f"Remove {count} items of {options.name!r}?", options.yes)
    queue.clear(partition=options.partition, all=options.all)
    return 0


def _delete(arguments: list[str]) -> int:
    parser = Parser("minimodal queue delete", "Delete a queue with all its items.")
    parser.add_argument("name")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    options = parser.parse(arguments)
    count = Queue.from_name(options.name).len(total=True)
    confirm(f"Delete the queue {options.name!r} with {count} items?", options.yes)
    Queue.objects.delete(options.name)
    return 0


COMMANDS = {
    "list": (_list, "list the queues"),
    "create": (_create, "make an empty one"),
    "peek": (_peek, "show the first items"),
    "len": (_len, "how many items there are"),
    "clear": (_clear, "remove items"),
    "delete": (_delete, "delete it"),
}
