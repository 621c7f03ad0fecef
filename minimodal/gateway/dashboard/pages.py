"""Whole pages: the frame around sections, the page of one call, the list of calls, the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minimodal import __version__

from . import charts, sections
from .snapshot import Snapshot
from .words import Html, ago, clock, esc, join, seconds, state_badge, tag

NAVIGATION = (
    ("/", "Overview"),
    ("/-/calls", "Calls"),
    ("/-/logs", "Logs"),
    ("/api/v1", "API"),
    ("/metrics", "Metrics"),
)
STATES = ("queued", "running", "ok", "error", "timeout", "cancelled", "lost")


def overview(s: Snapshot) -> str:
    parts = []
    for name, (heading, section, op) in sections.OVERVIEW.items():
        if s.has(op):
            parts.append(_section(name, heading, section(s)))
    log = tag("ol", id="log", class_="log", aria_live="off", tabindex="0", aria_label="Output")
    parts.append(_section("log-section", "Output", log, live=False))
    return page("Overview", "/", join(parts), live="overview")


def calls(s: Snapshot, rows: list[dict[str, Any]], chosen: Mapping[str, str]) -> str:
    options = [tag("option", "any state", value="")]
    for state in STATES:
        selected = "selected" if chosen.get("state") == state else None
        options.append(tag("option", state, value=state, selected=selected))
    form = tag(
        "form",
        tag("label", "State ", tag("select", *options, name="state")),
        tag("label", "Function ", _input("function", chosen.get("function", ""))),
        tag("button", "Filter", type="submit"),
        method="get",
        class_="filter",
    )
    return page(
        "Calls", "/-/calls", join([form, _section("", "Calls", sections.calls_table(rows, s.now))])
    )


def call(s: Snapshot, shown: Mapping[str, Any]) -> str:
    row = shown["call"]
    begun, end = row.get("started"), row.get("finished")
    facts = {
        "State": state_badge(row["state"]),
        "Function": row["function"] + (f".{row['method']}" if row["method"] else ""),
        "Created": join([clock(row["created"]), ", ", ago(row["created"], s.now)]),
        "Waited": seconds(max(0.0, (begun or end or s.now) - row["created"])),
        "Ran": seconds(None if begun is None else max(0.0, (end or s.now) - begun)),
        "Attempts": f"{row['attempts']}" + (f", {row['losses']} lost" if row.get("losses") else ""),
        "Container": tag("code", row["container"]) if row.get("container") else "–",
        "Parent": _call_link(row.get("parent")),
    }
    grid = join(join([tag("dt", name), tag("dd", value)]) for name, value in facts.items())
    parts = [
        _section("", "", join([charts.split(row, s.now), tag("dl", grid, class_="facts")])),
    ]
    if row.get("error"):
        parts.append(_section("", "Error", tag("pre", row["error"], tabindex="0")))
    for attempt in shown.get("attempts", ()):
        text = attempt.get("traceback") or f"{attempt['type']}: {attempt['message']}"
        parts.append(_section("", f"Attempt {attempt['number']}", tag("pre", text, tabindex="0")))
    lines = [log_line(each) for each in shown.get("logs", ())]
    body = (
        tag("ol", *lines, class_="log", tabindex="0")
        if lines
        else tag("p", "It printed nothing.", class_="empty")
    )
    parts.append(_section("", "Output", body))
    if row["state"] in ("queued", "running"):
        parts.append(
            tag("button", "Cancel", type="button", data_post=f"/api/v1/calls/{row['id']}/cancel")
        )
    return page(f"Call {row['id']}", "/-/calls", join(parts))


def logs(events: Sequence[Mapping[str, Any]]) -> str:
    search = tag(
        "div",
        tag("label", "Search ", _input("search", "", kind="search", id="search")),
        tag("label", _input("pause", "", kind="checkbox", id="pause"), " hold still"),
        class_="filter",
    )
    lines = tag(
        "ol", *map(log_line, events), id="log", class_="log tall", tabindex="0", aria_label="Output"
    )
    return page("Logs", "/-/logs", join([search, lines]), live="logs")


def log_line(event: Mapping[str, Any]) -> Html:
    call_id = event.get("call") or ""
    who = tag("a", event["name"], href=f"/-/calls/{call_id}") if call_id else event["name"]
    return tag(
        "li",
        tag("time", clock(event["at"])),
        tag("span", who, class_="who", title=event.get("container", "")),
        tag("span", event["text"], class_="text"),
        class_=event.get("stream", "stdout"),
    )


def missing(text: str) -> str:
    return page("Not found", "", tag("p", text, class_="empty"))


def page(title: str, here: str, body: Html, live: str | None = None) -> str:
    links = join(
        tag("a", text, href=url, aria_current="page" if url == here else None)
        for url, text in NAVIGATION
    )
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{esc(title)} · minimodal</title>"
        '<link rel="icon" href="/-/assets/icon.svg" type="image/svg+xml">'
        '<link rel="stylesheet" href="/-/assets/style.css">'
        '<script type="module" src="/-/assets/live.js"></script>'
    )
    header = (
        '<a class="skip" href="#main">Skip to content</a><header><a class="brand" href="/">'
        '<img src="/-/assets/icon.svg" alt="" width="24" height="24">minimodal</a>'
        f'<nav aria-label="Pages">{links}</nav>'
        '<span id="link" role="status" class="link"></span></header>'
    )
    main = tag("main", tag("h1", title), body, id="main", data_live=live)
    footer = f"<footer>minimodal {esc(__version__)}</footer>"
    notice = "<noscript><p class='empty'>Without scripts this page does not move; reload it.</p></noscript>"
    return (
        f'<!doctype html><html lang="en"><head>{head}</head><body>{header}{notice}{main}{footer}'
        "</body></html>"
    )


def _section(name: str, heading: str, body: Html, live: bool = True) -> Html:
    inner = tag("div", body, data_section=name if live and name else None, class_="body")
    title = [tag("h2", heading)] if heading else []
    return tag("section", *title, inner, class_=f"card {name}".strip())


def _call_link(call_id: str | None) -> Any:
    return tag("a", call_id, href=f"/-/calls/{call_id}", class_="id") if call_id else "–"


def _input(name: str, text: str, kind: str = "text", id: str | None = None) -> Html:
    return Html(
        f'<input name="{esc(name)}" type="{kind}" value="{esc(text)}"'
        f"{f' id={chr(34)}{id}{chr(34)}' if id else ''}>"
    )
