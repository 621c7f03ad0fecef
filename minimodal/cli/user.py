"""`minimodal user`: weights and quotas of users: list, set, reset."""

from __future__ import annotations

from typing import Any

from .engines import open_engines
from .failure import UsageError
from .listing import show
from .subcommands import Sub, dispatch, listing_parser

QUOTAS = ("weight", "max_running", "max_queued")


def main(arguments: list[str]) -> int:
    subs = {
        "list": Sub(_list, "users with a quota or with calls, and what they use"),
        "set": Sub(_set, "set a user's weight and quotas"),
        "reset": Sub(_reset, "weight 1 and no quota again"),
    }
    return dispatch("user", subs, arguments, "minimodal user set ada --weight 2 --max-running 8")


def _list(arguments: list[str]) -> int:
    parser = listing_parser(
        "user list",
        "List users with a quota or with calls. A quota holds in each engine by itself.",
        "user list --json",
    )
    options = parser.parse(arguments)
    rows: dict[str, dict[str, Any]] = {}
    with open_engines() as engines:
        answers = [answer for _, answer in engines.each("user.list")]
        for answer in answers or [engines.one("user.list")]:
            for row in answer["users"]:
                known = rows.setdefault(row["user"], {**row, "running": 0, "queued": 0})
                known["running"] += row["running"]
                known["queued"] += row["queued"]
    return show(
        options,
        "users",
        {"users": list(rows.values())},
        ("user", "weight", "running", "max", "queued", "max"),
        [
            (
                row["user"],
                f"{row['weight']:g}",
                row["running"],
                row["max_running"],
                row["queued"],
                row["max_queued"],
            )
            for row in rows.values()
        ],
        empty="no user has a quota or calls; those without a name are 'default'",
    )


def _set(arguments: list[str]) -> int:
    parser = listing_parser(
        "user set",
        "Set a user's weight and quotas, from now on and in all engines of this home. What is not\n"
        "given stays as it is.",
        "user set ada --weight 2 --max-running 8 --max-queued none",
    )
    parser.add_argument("user", help="the name that as_user() or a token gives")
    parser.add_argument("--weight", type=float, help="share of the containers against others' (1)")
    parser.add_argument("--max-running", metavar="N", help="calls that run at once; none: any")
    parser.add_argument("--max-queued", metavar="N", help="calls that wait; none: any")
    options = parser.parse(arguments)
    given = {name: getattr(options, name) for name in QUOTAS}
    fields = {name: _count(name, text) for name, text in given.items() if text is not None}
    if not fields:
        raise UsageError(
            "minimodal user set: say what.", hint="--weight, --max-running, --max-queued"
        )
    with open_engines() as engines:
        engines.one("user.set", user=options.user, **fields)
    return 0


def _count(name: str, text: Any) -> Any:
    if isinstance(text, float):
        return text
    if text.lower() == "none":
        return None
    if not text.isdecimal():
        option = "--" + name.replace("_", "-")
        raise UsageError(f"{option} {text!r} is no number.", hint=f"{option} 8, or {option} none")
    return int(text)


def _reset(arguments: list[str]) -> int:
    parser = listing_parser("user reset", "Weight 1 and no quota again.", "user reset ada")
    parser.add_argument("user")
    options = parser.parse(arguments)
    with open_engines() as engines:
        known = engines.one("user.reset", user=options.user)["known"]
    if not known:
        raise UsageError(f"nothing is set for the user {options.user!r}.", code=1)
    return 0
