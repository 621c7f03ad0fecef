"""The parts of the dashboard's pages. Each is HTML made of one snapshot, and is replaced as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import charts
from .snapshot import Snapshot
from .words import (
    Html,
    ago,
    badge,
    bound,
    count,
    join,
    nbytes,
    seconds,
    state_badge,
    table,
    tag,
)

Section = Callable[[Snapshot], Html]


def health(s: Snapshot) -> Html:
    tallies = s.rows("function.tally", "functions")
    failed = sum(sum(row["recent_failed"]) for row in tallies)
    recent = sum(sum(row["recent"]) for row in tallies)
    queued, running = (sum(row[name] for row in tallies) for name in ("queued", "running"))
    ready, all_of = (sum(row[name] for row in tallies) for name in ("ready", "containers"))
    tiles = [
        _tile(
            "Engine", str(s.engine.get("backend", "running")), f"up {seconds(s.now - s.started)}"
        ),
        _tile("Waiting", count(queued), "calls in queues", "warn" if queued > 100 else ""),
        _tile("Running", count(running), "calls"),
        _tile("Containers", f"{ready} / {all_of}", "ready / all"),
        _tile("Last 5 minutes", count(recent), "calls finished"),
        _tile("Failed", count(failed), "in 5 minutes", "bad" if failed else "good"),
    ]
    return join(tiles)


def functions(s: Snapshot) -> Html:
    more = {row["key"]: row for row in s.rows("function.list", "functions")}
    urls = {row["key"]: row["kind"] for row in s.rows("web.routes", "routes")}
    rows = []
    for row in s.rows("function.tally", "functions"):
        total = sum(row["states"].values())
        bad = total - row["states"]["ok"] - row["states"]["cancelled"]
        about = more.get(row["key"], {})
        marks = [badge(urls[row["key"]], "web")] if row["key"] in urls else []
        if about.get("schedule"):
            marks.append(badge("schedule"))
        if about.get("breaker", {}).get("state", "closed") != "closed":
            marks.append(badge(f"breaker {about['breaker']['state']}", "s-error"))
        name = tag("strong", row["name"]) if not row["variant"] else join([row["name"], " variant"])
        label = f"{row['name']}: {sum(row['recent'])} calls in five minutes"
        rows.append(
            (
                join(
                    [name, " ", tag("span", row["app"] or "unnamed app", class_="dim"), " ", *marks]
                ),
                charts.sparkline(row["recent"], row["recent_failed"], label),
                count(total),
                tag(
                    "span",
                    f"{bad / total:.1%}" if bad else "0",
                    class_="bad-text" if bad else "dim",
                ),
                bound(row["p50"]),
                bound(row["p95"]),
                count(row["queued"]),
                count(row["running"]),
                f"{row['ready']} / {row['containers']}",
            )
        )
    heads = (
        "Function",
        "5 minutes",
        "#Calls",
        "#Errors",
        "#p50",
        "#p95",
        "#Waiting",
        "#Running",
        "#Containers",
    )
    return table(heads, rows, "No app is open.", "Functions")


def timeline(s: Snapshot) -> Html:
    return charts.lanes(s.rows("call.list", "calls"), s.now)


def endpoints(s: Snapshot) -> Html:
    rows = []
    for row in s.rows("web.routes", "routes"):
        url = row["url"] or ""
        link = (
            tag("a", url, href=url)
            if "{" not in url and row["method"] == "GET"
            else tag("code", url)
        )
        curl = f"curl -X {row['method']} {url}" if row["method"] != "GET" else f"curl {url}"
        copy = tag("button", "copy curl", type="button", class_="small", data_copy=curl)
        method = row["method"] if row["kind"] in ("fastapi", "simple") else "any"
        rows.append((link, method, badge(row["kind"], "web"), row["function"], copy))
    return table(
        ("URL", "Method", "Kind", "Function", ""), rows, "No web endpoint.", "Web endpoints"
    )


def recent_calls(s: Snapshot) -> Html:
    return calls_table(s.rows("call.list", "calls")[:12], s.now)


def calls_table(calls: list[dict[str, Any]], now: float) -> Html:
    rows = []
    for call in calls:
        begun, end = call.get("started"), call.get("finished")
        waited = (begun or end or now) - call["created"]
        ran = None if begun is None else (end or now) - begun
        rows.append(
            (
                tag("a", call["id"], href=f"/-/calls/{call['id']}", class_="id"),
                call["function"].partition("/")[2]
                + (f".{call['method']}" if call["method"] else ""),
                state_badge(call["state"]),
                seconds(max(0.0, waited)),
                seconds(ran),
                count(call["attempts"]),
                ago(call["created"], now),
                tag("span", (call.get("error") or "")[:90], class_="error"),
            )
        )
    heads = ("Call", "Function", "State", "#Waited", "#Ran", "#Attempts", "Created", "Error")
    return table(heads, rows, "No call is known.", "Calls")


def containers(s: Snapshot) -> Html:
    rows = []
    for row in s.rows("container.list", "containers"):
        busy = row["calls"]
        what = [tag("a", c["id"], href=f"/-/calls/{c['id']}", class_="id") for c in busy[:3]]
        if len(busy) > 3:
            what.append(Html(f" and {len(busy) - 3} more"))
        stop = _post("stop", f"/api/v1/containers/{row['id']}/stop", f"Stop container {row['id']}")
        rows.append(
            (
                tag("code", row["id"]),
                row["name"],
                state_badge(row["state"]),
                ago(row["started"], s.now),
                join(what) or "–",
                stop,
            )
        )
    heads = ("Container", "Function", "State", "Started", "Works on", "")
    return table(heads, rows, "No container runs.", "Containers")


def dead_letters(s: Snapshot) -> Html:
    rows = [
        (
            tag("a", row["id"], href=f"/-/calls/{row['id']}", class_="id"),
            row["function"],
            state_badge(row["state"]),
            tag("span", (row.get("error") or "")[:120], class_="error"),
            ago(row.get("finished"), s.now),
            _post("retry", f"/api/v1/dead-letters/{row['id']}/retry", f"Retry call {row['id']}"),
        )
        for row in s.rows("dlq.list", "calls")
    ]
    heads = ("Call", "Function", "State", "Error", "Failed", "")
    return table(heads, rows, "Nothing has failed for good.", "Dead letters")


def schedules(s: Snapshot) -> Html:
    rows = []
    for row in s.rows("schedule.list", "schedules"):
        key = row["key"]
        following = row.get("next") or []
        nexts = following if isinstance(following, list) else [following]
        soon = [
            f"in {seconds(max(0.0, at - s.now))}"
            for at in nexts[:1]
            if isinstance(at, (int, float))
        ]
        when = row.get("schedule") or row.get("cron") or row.get("spec") or ""
        run = _post("run now", f"/api/v1/schedules/{key}/run", f"Run {key} now")
        rows.append((key, tag("code", when), soon[0] if soon else "–", run))
    return table(("Function", "Schedule", "Next", ""), rows, "No schedule.", "Schedules")


def storage(s: Snapshot) -> Html:
    rows: list[tuple[Any, ...]] = []
    for kind in ("volume", "secret", "dict", "queue"):
        for row in s.rows(f"{kind}.list", "objects"):
            size = row.get("nbytes", row.get("size"))
            made = row.get("created")
            rows.append(
                (
                    badge(kind),
                    tag("strong", row.get("name") or row.get("id") or "unnamed"),
                    nbytes(size) if isinstance(size, (int, float)) else "–",
                    ago(made, s.now) if isinstance(made, (int, float)) else "–",
                )
            )
    return table(("Kind", "Name", "#Size", "Created"), rows, "Nothing is stored.", "Storage")


def _tile(name: str, figure: str, about: str, kind: str = "") -> Html:
    return tag(
        "div",
        tag("span", name, class_="name"),
        tag("span", figure, class_="figure"),
        tag("span", about, class_="about"),
        class_=f"tile {kind}".strip(),
    )


def _post(text: str, url: str, label: str) -> Html:
    return tag("button", text, type="button", class_="small", data_post=url, aria_label=label)


OVERVIEW: dict[str, tuple[str, Section, str]] = {
    # id: heading, section, the operation that it needs
    "health": ("", health, "function.tally"),
    "functions": ("Functions", functions, "function.tally"),
    "timeline": ("Calls of the last two minutes", timeline, "call.list"),
    "endpoints": ("Web endpoints", endpoints, "web.routes"),
    "containers": ("Containers", containers, "container.list"),
    "calls": ("Latest calls", recent_calls, "call.list"),
    "dead-letters": ("Dead letters", dead_letters, "dlq.list"),
    "schedules": ("Schedules", schedules, "schedule.list"),
    "storage": ("Storage", storage, "volume.list"),
}
