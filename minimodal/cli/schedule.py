"""`minimodal schedule`: what runs by the clock: ls, pause, resume, run."""

from __future__ import annotations

import sys
from typing import Any

from .engines import Engines, check_known, open_engines
from .listing import ago, show, span
from .parser import Parser
from .subcommands import Sub, dispatch, listing_parser


def main(arguments: list[str]) -> int:
    subs = {
        "ls": Sub(_list, "the schedules, their last runs and the next"),
        "pause": Sub(_pause, "leave out ticks until it is resumed"),
        "resume": Sub(_resume, "go on with the next tick"),
        "run": Sub(_run, "run it now, besides"),
    }
    if arguments[:1] == ["list"]:
        arguments = ["ls", *arguments[1:]]
    return dispatch("schedule", subs, arguments, "minimodal schedule pause shop/report")


def _list(arguments: list[str]) -> int:
    parser = listing_parser(
        "schedule ls", "List the schedules of deployed and running apps.", "schedule ls"
    )
    options = parser.parse(arguments)
    with open_engines() as engines:
        rows = _find(engines)
    return show(
        options,
        "schedules",
        {"schedules": rows},
        ("function", "schedule", "last run", "last call", "next run"),
        [
            (
                f"{row['app_name'] or row['app']}/{row['name']}",
                _words(row),
                ago(row["last"]),
                row["last_call"],
                _next(row),
            )
            for row in rows
        ],
        empty="no schedules",
    )


def _find(engines: Engines) -> list[dict[str, Any]]:
    return engines.all_of("schedule.list", "schedules", "key")


def _words(row: dict[str, Any]) -> str:
    if row["cron"]:
        return f"{row['cron']} {row['timezone']}"
    parts = [f"{row['months']} months"] if row["months"] else []
    parts += [span(row["period"])] if row["period"] else []
    return f"every {' '.join(parts)}"


def _next(row: dict[str, Any]) -> str:
    if row["paused"]:
        return "paused"
    return ago(row["next"]) if row["hosted"] else "when `minimodal up` runs"


def _pause(arguments: list[str]) -> int:
    key = _change("pause", "Leave out its ticks until it is resumed.", arguments)
    print(f"{key} is paused", file=sys.stderr)
    return 0


def _resume(arguments: list[str]) -> int:
    key = _change("resume", "Go on with the next tick; those of the pause are gone.", arguments)
    print(f"{key} is resumed", file=sys.stderr)
    return 0


def _change(name: str, about: str, arguments: list[str]) -> str:
    options = _parser(name, about).parse(arguments)
    with open_engines() as engines:
        key = _key(engines, options.function)
        engines.change(f"schedule.{name}", key=key)
    return key


def _run(arguments: list[str]) -> int:
    options = _parser("run", "Run it now, besides its ticks; prints the call's id.").parse(
        arguments
    )
    with open_engines() as engines:
        engines.need_one()
        print(engines.one("schedule.run", key=_key(engines, options.function))["id"])
    return 0


def _parser(name: str, about: str) -> Parser:
    parser = Parser(f"minimodal schedule {name}", about, f"minimodal schedule {name} shop/report")
    parser.add_argument("function", metavar="APP/FUNCTION")
    return parser


def _key(engines: Engines, word: str) -> str:
    """The key of the schedule that is meant: app/function, or the function alone."""
    rows = _find(engines)
    names = {f"{row['app_name']}/{row['name']}": row["key"] for row in rows}
    names |= {row["key"]: row["key"] for row in rows}
    alone = [row["key"] for row in rows if row["name"] == word]
    if len(alone) == 1:
        return str(alone[0])
    check_known("schedule", word, list(names))
    return str(names[word])
