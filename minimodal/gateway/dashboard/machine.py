"""The machine side as tables: containers and their lanes, builds, what is stored, the settings."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from . import charts
from .snapshot import Snapshot
from .words import (
    Html,
    ago,
    badge,
    button,
    call_link,
    count,
    function_link,
    join,
    link,
    nbytes,
    seconds,
    state_badge,
    table,
    tag,
)


def lanes(s: Snapshot, key: str | None = None) -> Html:
    containers = s.rows("container.list", "containers")
    calls = s.rows("call.list", "calls")
    if key is not None:
        containers = [row for row in containers if row["function"] == key]
        calls = [row for row in calls if row["function"] == key]
    return join([charts.legend(), charts.lanes(containers, calls, s.now)])


def containers(s: Snapshot, key: str | None = None) -> Html:
    rows = []
    for row in s.rows("container.list", "containers"):
        if row["ended"] or key not in (None, row["function"]):
            continue
        busy = row["calls"]
        what: list[Any] = [call_link(call["id"]) for call in busy[:2]]
        if len(busy) > 2:
            what.append(f"and {len(busy) - 2} more")
        base = f"/api/v1/containers/{row['id']}"
        limit = row["memory_limit"]
        memory = nbytes(row["memory"]) + (f" of {limit} MiB" if limit else "")
        stop = button("stop", f"{base}/stop", f"Stop container {row['id']} when its calls are done")
        kill = button("kill", f"{base}/kill", f"Kill container {row['id']} now", sure=True)
        logs = link("logs", f"/-/logs?container={row['id']}")
        rows.append(
            (
                tag("code", row["id"]),
                function_link(row["function"], row["name"]),
                state_badge(row["state"]),
                ago(row["started"], s.now),
                seconds(row["ready"] - row["started"]) if row["ready"] else "–",
                "–" if row["cpu"] is None else f"{row['cpu'] * 100:.0f} %",
                memory if row["memory"] else "–",
                join([tag("span", each, class_="item") for each in what]) or "–",
                tag("span", logs, stop, kill, class_="row"),
            )
        )
    heads = (
        "Container", "Function", "State", "Started", "#Cold start", "#CPU", "#Memory", "Works on", "",
    )  # fmt: skip
    return table(heads, rows, "No container runs.", "Containers")


def builds(s: Snapshot) -> Html:
    rows = []
    for row in s.rows("image.builds", "builds"):
        layers = row["layers"]
        made = sum(layer["seconds"] is not None for layer in layers)
        steps = tag(
            "ol",
            *(
                tag(
                    "li",
                    tag("code", layer["text"][:160]),
                    " ",
                    badge("found", "s-ok")
                    if layer["seconds"] is None
                    else badge(f"made in {seconds(layer['seconds'])}", "s-running"),
                )
                for layer in layers
            ),
            class_="steps",
        )
        log = tag(
            "pre", "\n".join(row["lines"]) or "Found as it was; nothing was built.", tabindex="0"
        )
        error = tag("pre", row["error"], class_="bad-text") if row["error"] else ""
        summary = f"{len(layers)} steps, {made} made" if layers else f"{len(row['lines'])} lines"
        rows.append(
            (
                tag("code", row["name"]),
                state_badge({"ready": "ok", "failed": "error"}.get(row["state"], "running")),
                seconds(row["seconds"]),
                ago(row["started"], s.now),
                join([tag("span", function_link(key), class_="item") for key in row["functions"]]),
                tag(
                    "details",
                    tag("summary", summary),
                    error,
                    steps,
                    log,
                    data_key=f"b-{row['name']}",
                ),
            )
        )
    heads = ("Image", "State", "#Took", "When", "Used by", "Steps and log")
    return table(heads, rows, "No image was built or looked up yet.", "Image builds")


def storage(s: Snapshot) -> Html:
    rows: list[tuple[Any, ...]] = []
    for kind, many in (("volume", "files"), ("dict", "items"), ("queue", "items"), ("secret", "")):
        for row in s.rows(f"{kind}.list", "objects"):
            name = row.get("name") or row["id"]
            shown = link(name, f"/-/volumes/{quote(name)}") if kind == "volume" else name
            size = count(row[many]) if many in row else "–"
            rows.append(
                (
                    badge(kind),
                    tag("strong", shown),
                    f"{size} {many}" if many else "value hidden",
                    nbytes(row.get("nbytes")),
                    ago(row.get("created"), s.now),
                )
            )
    heads = ("Kind", "Name", "Holds", "#Size", "Created")
    return table(heads, rows, "Nothing is stored.", "Storage")


def settings(s: Snapshot) -> Html:
    rows = []
    for row in s.rows("engine.config", "settings"):
        value = row["value"]
        shown = "–" if value in (None, "", "()") else str(value)
        rows.append((tag("code", row["name"]), shown, row["origin"], row["about"]))
    heads = ("Setting", "Value", "From", "About")
    return table(heads, rows, "This engine does not say.", "Settings")


def isolation(s: Snapshot) -> Html:
    """What `minimodal doctor` says of the backend in use."""
    found = dict(s.engine.get("capabilities", {}))
    notes = found.pop("notes", ())
    rows = [(name, text) for name, text in found.items()]
    return join([table(("", "How it is isolated"), rows, "–", "Isolation"), *_notes(notes)])


def engine(s: Snapshot) -> Html:
    about = s.engine
    nodes = ", ".join(f"{n['cpu']:g} cores, {n['memory']} MiB" for n in about.get("nodes", ()))
    rows = [
        ("version", about.get("version", "–")),
        ("engine", tag("code", about.get("id", "–"))),
        ("process", about.get("pid", "–")),
        ("for containers", nodes or "–"),
        ("addresses", join([link("API", "/api/v1"), ", ", link("OpenAPI", "/api/v1/openapi.json"),
                            ", ", link("metrics", "/metrics")])),
        ("this run", link("save as one HTML file", "/-/export")),
    ]  # fmt: skip
    return table(("", ""), rows, "–", "Engine")


def _notes(notes: Any) -> list[Html]:
    return [tag("p", str(note), class_="dim") for note in notes]
