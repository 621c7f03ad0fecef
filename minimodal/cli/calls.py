"""`minimodal calls`: past and present calls: list, show, stack, cancel."""

from __future__ import annotations

import sys
from typing import Any

from .engines import Engines, ask, open_engines
from .listing import ago, iso, print_json, print_table, since, span
from .parser import Parser
from .subcommands import Sub, add_filters, dispatch, listing_parser


def main(arguments: list[str]) -> int:
    subs = {
        "list": Sub(_list, "the newest calls"),
        "show": Sub(_show, "one call: its attempts, its error, its output"),
        "stack": Sub(_stack, "where a running call is just now"),
        "cancel": Sub(_cancel, "stop calls"),
    }
    return dispatch("calls", subs, arguments, "minimodal calls list --state error --since 1h")


def _list(arguments: list[str]) -> int:
    parser = listing_parser(
        "calls list", "List calls, the newest first.", "calls list --state error --since 1h"
    )
    add_filters(parser)
    parser.add_argument(
        "--state", action="append", metavar="S", help="queued, running, ok, error, …"
    )
    parser.add_argument("--since", help="accepted after: 30m, 2h, 3d, or a date")
    parser.add_argument("--limit", type=int, default=50, help="at most so many (50)")
    options = parser.parse(arguments)
    fields = {
        "states": options.state,
        "app": options.app,
        "function": options.function,
        "since": since(options.since) if options.since else None,
        "limit": options.limit,
    }
    with open_engines() as engines:
        rows = find_calls(engines, fields)
    if options.json:
        print_json("calls", {"calls": rows})
    else:
        print_calls(rows, empty="no such calls")
    return 0


def find_calls(engines: Engines, fields: dict[str, Any]) -> list[dict[str, Any]]:
    """Calls on record and those that only their engines know of, each once."""
    if not engines.reached:
        found: list[dict[str, Any]] = engines.one("record.calls", **fields)["calls"]
        return found
    rows = {row["id"]: row for _, a in engines.each("call.list", **fields) for row in a["calls"]}
    ordered = sorted(rows.values(), key=lambda row: row["created"], reverse=True)
    return ordered[: fields["limit"]]


def print_calls(rows: list[dict[str, Any]], *, empty: str) -> None:
    print_table(
        ("call", "function", "state", "attempts", "age", "took", "error"),
        [
            (
                row["id"],
                title(row),
                row["state"],
                row["attempts"],
                ago(row["created"]),
                _took(row),
                row["error"][:60],
            )
            for row in rows
        ],
        empty=empty,
    )


def title(row: dict[str, Any]) -> str:
    name: str = row["function"]
    if row.get("app_name"):
        name = f"{row['app_name']}/{name.partition('/')[2]}"
    elif name.startswith("ap-"):  # of an app that has ended: its id tells nobody anything
        name = name.partition("/")[2]
    return f"{name}.{row['method']}" if row["method"] else name


def _took(row: dict[str, Any]) -> str | None:
    if row["started"] is None or row["finished"] is None:
        return None
    return span(max(row["finished"] - row["started"], 0.0))


def _show(arguments: list[str]) -> int:
    parser = listing_parser("calls show", "Show one call.", "calls show fc-0123456789abcdef")
    parser.add_argument("id", help="its id")
    options = parser.parse(arguments)
    with open_engines() as engines:
        found = show_call(engines, options.id)
    if options.json:
        print_json("call", found)
        return 0
    print_call(found)
    for line in found.get("logs", ()):
        print(f"  | {line['text']}")
    return 0


def show_call(engines: Engines, call_id: str) -> dict[str, Any]:
    """What the engine that runs it says, else what is on record. Raises NotFoundError."""
    from minimodal.errors import NotFoundError

    if not engines.reached:
        return engines.one("record.call", id=call_id)
    best: dict[str, Any] | None = None
    for engine in engines.reached:
        try:
            found = ask(engine.connection, "call.show", id=call_id)
        except NotFoundError:
            continue
        if found["logs"] or best is None:
            best = found
    if best is None:
        raise NotFoundError(f"no call {call_id}")
    return best


def print_call(found: dict[str, Any]) -> None:
    """A call and its failed attempts, for people."""
    row = found["call"]
    rows = [
        ("call", row["id"]),
        ("function", title(row)),
        ("state", row["state"] + (", in the dead letters" if row["dead"] else "")),
        ("attempts", f"{row['attempts']}, of these {row['losses']} lost with their container"),
        ("created", iso(row["created"])),
        ("started", iso(row["started"]) if row["started"] else None),
        ("finished", iso(row["finished"]) if row["finished"] else None),
        ("container", row.get("container")),
        ("parent", row["parent"]),
        ("retry of", row["retry_of"]),
        ("error", row["error"]),
    ]
    for name, value in rows:
        if value:
            print(f"{name:<10} {value}")
    for attempt in found["attempts"]:
        print(f"\nattempt {attempt['number']}, {'lost' if attempt['lost'] else 'failed'}:")
        text = attempt["traceback"] or f"{attempt['type']}: {attempt['message']}"
        print("\n".join("  " + line for line in text.rstrip().splitlines()))


def _stack(arguments: list[str]) -> int:
    parser = listing_parser(
        "calls stack", "Show where a running call is just now.", "calls stack fc-0123456789abcdef"
    )
    parser.add_argument("id", help="its id, as `minimodal calls list --state running` says it")
    options = parser.parse(arguments)
    with open_engines() as engines:
        found = _first_that_knows(engines, "call.stack", options.id)
    if options.json:
        print_json("stack", found)
        return 0
    row, threads = found["call"], found["threads"]
    print(f"{title(row)} ({row['id']}), {span(found['seconds'])} in {found['container']}")
    for thread in threads:
        if len(threads) > 1:
            print(f"{thread['name']}:")
        for file, line, function, text in thread["frames"]:
            print(f'  File "{file}", line {line}, in {function}')
            if text:
                print(f"    {text}")
    return 0


def _first_that_knows(engines: Engines, op: str, call_id: str) -> dict[str, Any]:
    """The answer of the engine that has the call. Raises NotFoundError, or what the last one said."""
    from minimodal.errors import Error, NotFoundError

    error: Error = NotFoundError(f"no call {call_id} runs: no engine of this home knows it")
    for engine in engines.reached:
        try:
            return ask(engine.connection, op, id=call_id)
        except NotFoundError:
            continue
        except Error as said:
            error = said
    raise error


def _cancel(arguments: list[str]) -> int:
    parser = Parser(
        "minimodal calls cancel",
        "Stop calls. Their outcome is cancelled, unless they have one.",
        "minimodal calls cancel fc-0123456789abcdef",
    )
    parser.add_argument("id", nargs="+")
    options = parser.parse(arguments)
    with open_engines() as engines:
        for call_id in options.id:
            row = show_call(engines, call_id)["call"]
            owner = [e for e in engines.reached if e.info.id == row["engine"]]
            engines.reached = owner or engines.reached
            engines.one("call.cancel" if engines.reached else "record.cancel", id=call_id)
            print(f"{call_id} is cancelled", file=sys.stderr)
    return 0
