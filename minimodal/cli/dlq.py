"""`minimodal dlq`: dead letters, the calls that failed for good: list, show, retry, purge."""

from __future__ import annotations

import argparse

from .calls import print_call, print_calls
from .engines import open_engines
from .failure import UsageError
from .listing import print_json, since
from .parser import Parser
from .subcommands import Sub, dispatch, listing_parser


def main(arguments: list[str]) -> int:
    subs = {
        "list": Sub(_list, "the newest dead letters"),
        "show": Sub(_show, "one of them, with the traceback of each attempt"),
        "retry": Sub(_retry, "run them again, as new calls with the same input"),
        "purge": Sub(_purge, "drop their inputs"),
    }
    return dispatch("dlq", subs, arguments, "minimodal dlq retry --function shop/pay")


def _list(arguments: list[str]) -> int:
    parser = listing_parser("dlq list", "List dead letters, the newest first.", "dlq list --json")
    parser.add_argument("--function", metavar="APP/NAME", help="only of this function")
    parser.add_argument("--limit", type=int, default=50, help="at most so many (50)")
    options = parser.parse(arguments)
    with open_engines() as engines:
        found = engines.one("dlq.list", function=options.function, limit=options.limit)
    if options.json:
        print_json("dlq", found)
        return 0
    print_calls(found["calls"], empty="no dead letters")
    if found["count"] > len(found["calls"]):
        print(f"… and {found['count'] - len(found['calls'])} more")
    return 0


def _show(arguments: list[str]) -> int:
    parser = listing_parser("dlq show", "Show a dead letter.", "dlq show fc-0123456789abcdef")
    parser.add_argument("id", help="its call's id")
    options = parser.parse(arguments)
    with open_engines() as engines:
        found = engines.one("dlq.show", id=options.id)
    if options.json:
        print_json("dead_letter", found)
    else:
        print_call(found)
    return 0


def _retry(arguments: list[str]) -> int:
    parser = listing_parser(
        "dlq retry",
        "Run dead letters again, each as a new call. Without an engine the next one runs them.",
        "dlq retry --function shop/pay",
    )
    options = _selected(parser, arguments)
    with open_engines() as engines:
        found = engines.one("dlq.retry", ids=options.id or None, function=options.function)
        later = not engines.reached
    if options.json:
        print_json("dlq_retry", found)
        return 0
    for call_id in found["calls"]:
        print(call_id)
    if later and found["calls"]:
        print("no engine runs here: the next one runs them")
    return 0


def _purge(arguments: list[str]) -> int:
    parser = listing_parser(
        "dlq purge",
        "Drop the inputs of dead letters; their errors stay readable with `calls show`.",
        "dlq purge --before 7d",
    )
    parser.add_argument("--before", help="those that ended before: 2h, 3d, or a date")
    options = _selected(parser, arguments)
    with open_engines() as engines:
        found = engines.one(
            "dlq.purge",
            ids=options.id or None,
            function=options.function,
            before=since(options.before) if options.before else None,
            all=options.all,
        )
    if options.json:
        print_json("dlq_purge", found)
    else:
        print(f"{found['count']} purged")
    return 0


def _selected(parser: Parser, arguments: list[str]) -> argparse.Namespace:
    parser.add_argument("id", nargs="*", help="ids of their calls")
    parser.add_argument("--function", metavar="APP/NAME", help="those of this function")
    parser.add_argument("--all", action="store_true", help="all of them")
    options = parser.parse(arguments)
    if not (options.id or options.function or options.all or getattr(options, "before", None)):
        raise UsageError(f"{parser.prog}: say which.", hint="an id, --function APP/NAME, or --all")
    return options
