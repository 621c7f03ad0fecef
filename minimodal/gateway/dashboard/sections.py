"""What users made, as tables: functions, calls, dead letters, endpoints, schedules."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from . import charts
from .snapshot import Snapshot
from .words import (
    Html,
    about,
    ago,
    badge,
    button,
    call_link,
    copy,
    count,
    function_link,
    iso,
    join,
    link,
    seconds,
    state_badge,
    table,
    tag,
)

LONGEST_ERROR = 100
FEW = 4  # schedules, of which all next times are shown


def health(s: Snapshot) -> Html:
    tallies = s.rows("function.tally", "functions")
    failed = sum(sum(row["recent_failed"]) for row in tallies)
    recent = sum(sum(row["recent"]) for row in tallies)
    queued, running = (sum(row[name] for row in tallies) for name in ("queued", "running"))
    ready, all_of = (sum(row[name] for row in tallies) for name in ("ready", "containers"))
    workers = s.rows("container.list", "containers")
    told = [row["memory"] for row in workers if row["memory"] is not None and not row["ended"]]
    memory = f", {sum(told) >> 20} MiB" if told else ""
    dead = s.answers.get("dlq.list", {}).get("count", 0)
    tiles = [
        _tile(
            "Engine",
            str(s.engine.get("backend", "running")),
            f"up {about(s.now - s.started)}",
            href="/-/settings",
        ),
        _tile("Waiting", count(queued), "calls", "warn" if queued > 100 else "", "/-/calls?state=queued"),
        _tile("Running", count(running), "calls", "", "/-/calls?state=running"),
        _tile("Containers", f"{ready} / {all_of}", f"ready / all{memory}", "", "/-/workers"),
        _tile("Finished", count(recent), "calls in 5 minutes", "", "/-/calls"),
        _tile("Failed", count(failed), "calls in 5 minutes", "bad" if failed else "", "/-/calls?state=error"),
        _tile("Dead letters", count(dead), "failed for good", "warn" if dead else "", "#dead-letters"),
    ]  # fmt: skip
    return join(tiles)


def functions(s: Snapshot) -> Html:
    more = {row["key"]: row for row in s.rows("function.list", "functions")}
    rows = []
    for row in s.rows("function.tally", "functions"):
        total = sum(row["states"].values())
        bad = total - row["states"]["ok"] - row["states"]["cancelled"]
        name = join([function_link(row["key"], row["name"]), " variant" if row["variant"] else ""])
        app = tag("span", row["app"] or "unnamed app", class_="dim")
        label = f"{row['name']}: {sum(row['recent'])} calls in five minutes"
        errors = f"{bad / total:.1%}" if bad else "0"
        rows.append(
            (
                join([name, " ", app, " ", *marks(more.get(row["key"], {}))]),
                charts.sparkline(row["recent"], row["recent_failed"], label),
                count(total),
                tag("span", errors, class_="bad-text" if bad else "dim"),
                seconds(row["p50"]),
                seconds(row["p95"]),
                count(row["queued"]),
                count(row["running"]),
                f"{row['ready']} / {row['containers']}",
            )
        )
    heads = (
        "Function", "5 minutes", "#Calls", "#Errors", "#p50", "#p95", "#Waiting", "#Running",
        "#Containers",
    )  # fmt: skip
    return table(heads, rows, "No app is open. Try: minimodal run examples/hello.py", "Functions")


def marks(function: dict[str, Any]) -> list[Html]:
    """What is special about a function."""
    endpoints = [function.get("web"), *function.get("web_methods", {}).values()]
    found = [badge(each["kind"], "web") for each in endpoints if each]
    if function.get("schedule"):
        found.append(badge("schedule"))
    if function.get("draining"):
        found.append(badge("old version"))
    breaker = function.get("breaker", {})
    if breaker.get("state", "closed") != "closed":
        found.append(badge(f"breaker {breaker['state']}", "s-error"))
    return found


def recent_calls(s: Snapshot) -> Html:
    return calls_table(s.rows("call.list", "calls")[:12], s.now)


def calls_table(calls: Sequence[dict[str, Any]], now: float) -> Html:
    rows = []
    for call in calls:
        begun, end = call.get("started"), call.get("finished")
        waited = (begun or end or now) - call["created"]
        ran = None if begun is None else max(0.0, (end or now) - begun)
        name = call["function"].partition("/")[2].partition("~")[0]
        error = call.get("error") or ""
        rows.append(
            (
                call_link(call["id"]),
                function_link(
                    call["function"], name + (f".{call['method']}" if call["method"] else "")
                ),
                state_badge(call["state"]),
                seconds(max(0.0, waited)),
                seconds(ran),
                count(call["attempts"]),
                ago(call["created"], now),
                tag("span", error[:LONGEST_ERROR], class_="error", title=error[:500] or None),
            )
        )
    heads = ("Call", "Function", "State", "#Waited", "#Ran", "#Attempts", "Created", "Error")
    return table(heads, rows, "No call is known.", "Calls")


def dead_letters(s: Snapshot) -> Html:
    rows = []
    for row in s.rows("dlq.list", "calls"):
        url, error = f"/api/v1/dead-letters/{row['id']}", row.get("error") or ""
        retry = button("retry", f"{url}/retry", f"Retry call {row['id']}")
        rows.append(
            (
                call_link(row["id"]),
                function_link(row["function"]),
                state_badge(row["state"]),
                tag("span", error[:LONGEST_ERROR], class_="error", title=error[:500] or None),
                ago(row.get("finished"), s.now),
                retry,
            )
        )
    heads = ("Call", "Function", "State", "Error", "Failed", "")
    return table(heads, rows, "Nothing has failed for good.", "Dead letters")


def endpoints(s: Snapshot, key: str | None = None) -> Html:
    tallies = {row["key"]: row for row in s.rows("function.tally", "functions")}
    rows = []
    for row in s.rows("web.routes", "routes"):
        if key not in (None, row["key"]):
            continue
        url, method = row["url"] or "", row["method"]
        plain = "{" not in url and method == "GET"
        recent = tallies.get(row["key"], {}).get("recent", [])[-12:]
        codes = s.statuses.get((row["app"], row["function"]), {})
        said = [badge(f"{code}: {count(n)}", _family(code)) for code, n in sorted(codes.items())]
        curl = f"curl '{url}'" if method == "GET" else f"curl -X {method} '{url}'"
        rows.append(
            (
                link(url, url) if plain else tag("code", url),
                method if row["kind"] in ("fastapi", "simple") else "any",
                badge(row["kind"], "web"),
                function_link(row["key"], row["function"]),
                f"{sum(recent) / 60:.1f}",
                join(said) or "–",
                copy(curl, "copy curl"),
            )
        )
    heads = ("URL", "Method", "Kind", "Function", "#Requests/s", "Answers", "")
    return table(heads, rows, "No web endpoint.", "Web endpoints")


def _family(code: int) -> str:
    return "s-ok" if code < 400 else "s-queued" if code < 500 else "s-error"


def schedules(s: Snapshot, key: str | None = None) -> Html:
    rows = []
    few = "" if len(s.rows("schedule.list", "schedules")) <= FEW else None
    for row in s.rows("schedule.list", "schedules"):
        if key not in (None, row["key"]):
            continue
        name, url = f"{row['app_name'] or row['app']}/{row['name']}", quote(row["key"])
        base = f"/api/v1/schedules/{url}"
        paused = (
            button("resume", f"{base}/resume", f"Resume {name}")
            if row["paused"]
            else button("pause", f"{base}/pause", f"Pause {name}")
        )
        upcoming = row.get("upcoming") or []
        if row["paused"]:
            following: Any = badge("paused", "s-queued")
        elif upcoming:
            zone = row["timezone"] if row["cron"] else "UTC"
            times = tag("ol", *(tag("li", _both(at, zone)) for at in upcoming), class_="times")
            summary = tag("summary", ago(upcoming[0], s.now))
            following = tag("details", summary, times, data_key=name, open=few)
        else:
            following = "–"
        rows.append(
            (
                function_link(row["key"], name),
                tag("code", words_of(row)),
                following,
                ago(row["last"], s.now),
                call_link(row["last_call"]),
                tag(
                    "span",
                    button("run now", f"{base}/run", f"Run {name} now"),
                    paused,
                    class_="row",
                ),
            )
        )
    heads = ("Function", "Schedule", "Next", "Last", "Last call", "")
    return table(heads, rows, "No schedule.", "Schedules")


def words_of(row: dict[str, Any]) -> str:
    """A schedule as its function has it."""
    if row["cron"]:
        return f"{row['cron']} {row['timezone']}"
    parts = [f"{row['months']} months"] if row["months"] else []
    parts += [seconds(row["period"])] if row["period"] else []
    return f"every {' '.join(parts)}"


def _both(at: float, zone: str) -> str:
    from datetime import datetime
    from zoneinfo import ZoneInfo

    if zone == "UTC":
        return iso(at)
    try:
        there = datetime.fromtimestamp(at, ZoneInfo(zone))
    except (KeyError, ValueError, OSError):
        return iso(at)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(at))} UTC, {there:%H:%M} {zone}"


def _tile(name: str, figure: str, about_it: str, kind: str = "", href: str = "/") -> Html:
    return tag(
        "a",
        tag("span", name, class_="name"),
        tag("span", figure, class_="figure"),
        tag("span", about_it, class_="about"),
        class_=f"tile {kind}".strip(),
        href=href,
    )
