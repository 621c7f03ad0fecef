"""The pages of one thing: a call, a function, a volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from . import charts, machine, sections
from .snapshot import Snapshot
from .words import (
    Html,
    ago,
    button,
    call_link,
    clock,
    function_link,
    join,
    link,
    nbytes,
    state_badge,
    table,
    tag,
)


def call_facts(s: Snapshot, shown: Mapping[str, Any]) -> Html:
    row = shown["call"]
    base = f"/api/v1/calls/{row['id']}"
    buttons = []
    if row["state"] in ("queued", "running"):
        buttons.append(button("cancel", f"{base}/cancel", f"Cancel call {row['id']}", sure=True))
    if row["state"] == "running":
        buttons.append(_stack(row["id"]))
    if row.get("dead"):
        retry = f"/api/v1/dead-letters/{row['id']}/retry"
        buttons.append(button("retry", retry, f"Retry call {row['id']}"))
    container = row.get("container")
    method = f".{row['method']}" if row["method"] else ""
    facts = {
        "State": join([state_badge(row["state"]), " ", *buttons]),
        "Function": join([function_link(row["function"]), method]),
        "Created": join([clock(row["created"]), ", ", ago(row["created"], s.now)]),
        "Attempts": f"{row['attempts']}" + (f", {row['losses']} lost" if row.get("losses") else ""),
        "Container": link(container, f"/-/logs?container={container}", "id") if container else "–",
        "Caller": call_link(row.get("parent")),
        "Retry of": call_link(row.get("retry_of")),
        "User": row["user"],
        "On record": "yes, it survives the engine" if row.get("durable") else "no, it is attached",
    }
    return join([charts.split(row, s.now), facts_of(facts)])


def _stack(call_id: str) -> Html:
    """Answered in the page, below the button."""
    return tag(
        "button",
        "stack",
        type="button",
        class_="small",
        data_show=f"/api/v1/calls/{call_id}/stack",
        aria_label=f"Show the stack of call {call_id}",
    )


def call_values(shown: Mapping[str, Any]) -> Html:
    """Read from the pickles without unpickling, cut, and without the function's secrets."""
    parts = []
    for name, text in (("Input", shown.get("input")), ("Result", shown.get("value"))):
        words: Any = tag("pre", text, tabindex="0") if text is not None else None
        missing = tag("span", "not kept", class_="dim", title="see minimodal calls show")
        parts.append(join([tag("dt", name), tag("dd", words or missing)]))
    return tag("dl", join(parts), class_="values")


def call_failures(shown: Mapping[str, Any]) -> Html:
    row = shown["call"]
    parts = []
    for attempt in shown.get("attempts", ()):
        text = attempt.get("traceback") or f"{attempt['type']}: {attempt['message']}"
        kind = "lost with its container" if attempt["lost"] else attempt["type"]
        head = f"Attempt {attempt['number']}: {kind.removeprefix('builtins.')}"
        parts.append(join([tag("h3", head), tag("pre", text, tabindex="0")]))
    if not parts and row.get("error"):
        parts.append(tag("pre", row["error"], tabindex="0"))
    return join(parts) or tag("p", "Nothing went wrong.", class_="empty")


def children(s: Snapshot, call_id: str) -> Html:
    rows = [row for row in s.rows("call.list", "calls") if row.get("parent") == call_id]
    return sections.calls_table(rows, s.now)


def function_charts(s: Snapshot, key: str) -> Html:
    found = [row for row in s.rows("function.tally", "functions") if row["key"] == key]
    if not found:
        return tag("p", "It is not open in this engine.", class_="empty")
    row = found[0]
    done = [good - bad for good, bad in zip(row["recent"], row["recent_failed"], strict=True)]
    drawn = [
        charts.series(done, row["slice"], "Calls that ended well", "ok"),
        charts.series(row["recent_failed"], row["slice"], "Calls that failed", "bad"),
        charts.series(row["recent_queued"], row["slice"], "Waiting", "warn"),
        charts.series(row["recent_containers"], row["slice"], "Containers", "run"),
    ]
    return tag("div", *drawn, class_="series-grid")


def function_facts(s: Snapshot, key: str) -> Html:
    found = [row for row in s.rows("function.list", "functions") if row["key"] == key]
    if not found:
        return tag("p", "It is not open in this engine.", class_="empty")
    row = found[0]
    scaling, resources = row["scaling"], row["resources"]
    memory, memory_limit = resources["memory"], resources["memory_limit"]
    facts = {
        "App": row["app_name"] or row["app"],
        "Kind": join([("class" if row["is_class"] else "function"), " ", *sections.marks(row)]),
        "Inputs at a time": row["max_inputs"],
        "Timeout": f"{row['timeout']:g} s",
        "Containers": f"{scaling['min_containers']} to {scaling['max_containers'] or 'any number'}",
        "CPU": f"{resources['cpu']:g} cores",
        "Memory": f"{memory} MiB" + (f", at most {memory_limit}" if memory_limit else ""),
        "Image": tag("code", row["image"][:12]) if row["image"] else "–",
        "Breaker": f"{row['breaker']['state']} {row['breaker']['reason'] or ''}".strip(),
    }
    return facts_of(facts)


def function_calls(s: Snapshot, key: str) -> Html:
    rows = s.of(key, "call.list", "calls")[:20]
    more = tag("p", link("all its calls", f"/-/calls?function={quote(key)}"))
    return join([sections.calls_table(rows, s.now), more])


def function_containers(s: Snapshot, key: str) -> Html:
    return join([machine.containers(s, key), machine.lanes(s, key)])


def volume_files(name: str, path: str, rows: Sequence[Sequence[Any]], now: float) -> Html:
    """A directory of a volume; files are links that download them."""
    base = f"/-/volumes/{quote(name)}"
    trail = [link(name, base)]
    so_far = ""
    for part in [p for p in path.split("/") if p]:
        so_far += f"/{part}"
        trail += [Html(" / "), link(part, f"{base}?path={quote(so_far)}")]
    shown = []
    for each, kind, at, size in rows:
        leaf = each.rpartition("/")[2]
        url = (
            f"{base}?path={quote('/' + each)}"
            if kind == "directory"
            else f"/api/v1/volumes/{quote(name)}/files/{quote(each)}"
        )
        shown.append(
            (
                link(leaf + ("/" if kind == "directory" else ""), url),
                kind,
                nbytes(size) if kind == "file" else "–",
                ago(at, now) if kind == "file" else "–",
            )
        )
    heads = ("Name", "Kind", "#Size", "Written")
    return join([tag("p", join(trail)), table(heads, shown, "It is empty.", "Files")])


def facts_of(facts: Mapping[str, Any]) -> Html:
    pairs = [
        tag("div", tag("dt", name), tag("dd", "–" if value in (None, "") else value))
        for name, value in facts.items()
    ]
    return tag("dl", *pairs, class_="facts")
