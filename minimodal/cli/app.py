"""`minimodal app`: deployed apps and their versions: list, history, rollback, stop, logs."""

from __future__ import annotations

import sys
from typing import Any

from .engines import Engines, check_known, open_engines
from .failure import UsageError
from .listing import ago, show
from .parser import Parser
from .subcommands import Sub, dispatch, listing_parser


def main(arguments: list[str]) -> int:
    subs = {
        "list": Sub(_list, "apps that are deployed, stopped, or run now"),
        "history": Sub(_history, "the versions of an app"),
        "rollback": Sub(_rollback, "serve an earlier version again"),
        "stop": Sub(_stop, "stop serving an app; its versions are kept"),
        "logs": Sub(_logs, "what its functions print"),
    }
    return dispatch("app", subs, arguments, "minimodal app rollback shop")


def _list(arguments: list[str]) -> int:
    parser = listing_parser("app list", "List apps.", "app list --json")
    options = parser.parse(arguments)
    with open_engines() as engines:
        rows = find_apps(engines)
    return show(
        options,
        "apps",
        {"apps": rows},
        ("app", "state", "version", "functions", "age", "hosted by"),
        [
            (
                row["name"] or row["id"],
                row["state"],
                row["version"],
                ", ".join(row["functions"]),
                ago(row["created"]),
                row.get("engine", ""),
            )
            for row in rows
        ],
        empty="no app is deployed",
    )


def find_apps(engines: Engines) -> list[dict[str, Any]]:
    """Each app once, with the engine that has it."""
    return engines.all_of("app.list", "apps", "id")


def _history(arguments: list[str]) -> int:
    parser = listing_parser("app history", "List the versions of an app.", "app history shop")
    parser.add_argument("name")
    options = parser.parse(arguments)
    with open_engines() as engines:
        _require(engines, options.name)
        found = engines.one("app.history", app=options.name)
    return show(
        options,
        "app_history",
        found,
        ("version", "age", "runs", "functions", "note"),
        [
            (
                row["version"],
                ago(row["created"]),
                "now" if row["current"] else "",
                ", ".join(row["functions"]),
                row["note"],
            )
            for row in found["versions"]
        ],
    )


def _rollback(arguments: list[str]) -> int:
    parser = Parser(
        "minimodal app rollback",
        "Serve an earlier version again, as a new version. It is tried first, as a deployment is.",
        "minimodal app rollback shop 3",
    )
    parser.add_argument("name")
    parser.add_argument("version", type=int, nargs="?", help="left out: the one before the current")
    options = parser.parse(arguments)
    with open_engines() as engines:
        _require(engines, options.name)
        done = engines.change("app.rollback", app=options.name, version=options.version)
        version = done["version"]
    print(f"{options.name} is at version {version}", file=sys.stderr)
    return 0


def _stop(arguments: list[str]) -> int:
    parser = Parser(
        "minimodal app stop",
        "Stop serving an app. Its unfinished calls are cancelled; its versions are kept, and\n"
        "`minimodal app rollback NAME VERSION` or `minimodal deploy` start it again.",
        "minimodal app stop shop",
    )
    parser.add_argument("name")
    options = parser.parse(arguments)
    with open_engines() as engines:
        _require(engines, options.name)
        engines.change("app.stop", app=options.name)
    print(f"{options.name} is stopped", file=sys.stderr)
    return 0


def _logs(arguments: list[str]) -> int:
    from . import logs

    if not arguments or arguments[0] in ("-h", "--help"):
        parser = Parser(
            "minimodal app logs", "As `minimodal logs --app`.", "minimodal app logs shop"
        )
        parser.add_argument("name")
        parser.parse(arguments)
    if arguments[0].startswith("-"):
        raise UsageError(
            "minimodal app logs: the app comes first.", hint="minimodal app logs shop -f"
        )
    return logs.main(["--app", *arguments])


def _require(engines: Engines, name: str) -> None:
    check_known("app", name, [row["name"] for row in find_apps(engines) if row["version"]])
