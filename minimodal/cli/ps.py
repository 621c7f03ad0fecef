"""`minimodal ps`: what runs now, in all engines of this home: functions and their containers."""

from __future__ import annotations

from typing import Any

from .engines import check_known, open_engines
from .listing import ago, print_json, print_table, span
from .subcommands import add_filters, listing_parser


def main(arguments: list[str]) -> int:
    parser = listing_parser(
        "ps",
        "Show the functions of all engines of this home, their queues, breakers and containers.",
        "ps --containers",
    )
    add_filters(parser)
    parser.add_argument("-c", "--containers", action="store_true", help="a row for each container")
    options = parser.parse(arguments)
    functions: list[dict[str, Any]] = []
    containers: list[dict[str, Any]] = []
    with open_engines() as engines:
        shown = [
            {"id": e.info.id, "role": e.info.role, "pid": e.info.pid, "started": e.info.started}
            for e in engines.reached
        ]
        for op, rows in (("function.list", functions), ("container.list", containers)):
            for engine, answer in engines.each(op):
                (found,) = answer.values()
                rows += [{**row, "engine": engine.title} for row in found]
    check_known("app", options.app, [row["app_name"] or row["app"] for row in functions])
    check_known("function", options.function, [n for row in functions for n in _names(row)])
    functions = [row for row in functions if _is_wanted(row, options)]
    keys = {row["key"] for row in functions}
    containers = [row for row in containers if row["function"] in keys]
    if options.json:
        fields = {"engines": shown, "functions": functions, "containers": containers}
        print_json("ps", fields)
    elif options.containers:
        print_table(
            ("container", "app", "function", "state", "calls", "age", "engine"),
            [
                (
                    row["id"],
                    row["app_name"],
                    row["name"],
                    row["state"],
                    ", ".join(f"{c['id']} ({span(c['seconds'])})" for c in row["calls"]),
                    ago(row["started"]),
                    row["engine"],
                )
                for row in containers
            ],
            empty="no container runs",
        )
    else:
        print_table(
            ("app", "function", "queued", "running", "containers", "breaker", "engine"),
            [_function(row) for row in functions],
            empty="nothing runs here" if shown else "no engine runs in this home",
        )
        for row in functions:
            breaker = row["breaker"]
            if breaker["state"] != "closed":
                print(f"{row['app_name'] or row['app']}/{row['name']}: {breaker['text']}")
    return 0


def _function(row: dict[str, Any]) -> tuple[Any, ...]:
    name = row["name"] + (f"~{row['variant']}" if row["variant"] else "")
    return (
        row["app_name"] or row["app"],
        name + (" (old version)" if row["draining"] else ""),
        row["queued"],
        row["running"],
        f"{row['ready']}/{row['containers']}",
        row["breaker"]["state"],
        row["engine"],
    )


def _names(row: dict[str, Any]) -> tuple[str, ...]:
    return row["name"], row["key"], f"{row['app_name']}/{row['name']}"


def _is_wanted(row: dict[str, Any], options: Any) -> bool:
    in_app = options.app in (None, row["app"], row["app_name"])
    return in_app and (options.function is None or options.function in _names(row))
