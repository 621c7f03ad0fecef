"""The pages: which parts each has, and the frame around them. A part is HTML that is replaced as a whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from minimodal import __version__
from minimodal.errors import Error, InvalidError, NotFoundError

from . import details, machine, sections
from .snapshot import Snapshot
from .words import Html, clock, esc, join, link, tag

if TYPE_CHECKING:
    from minimodal.gateway.seam import Ask

NAVIGATION = (
    ("/", "Overview"),
    ("/-/calls", "Calls"),
    ("/-/workers", "Workers"),
    ("/-/schedules", "Schedules"),
    ("/-/endpoints", "Endpoints"),
    ("/-/images", "Images"),
    ("/-/storage", "Storage"),
    ("/-/logs", "Logs"),
    ("/-/settings", "Settings"),
)
STATES = ("queued", "running", "ok", "error", "timeout", "cancelled", "lost")
SPANS = {"": "any time", "300": "5 minutes", "3600": "1 hour", "86400": "1 day"}
LINES = 300  # of output that a page starts with

Fields = Mapping[str, str]


class Part(NamedTuple):
    """`name` tells the script where it belongs; a part without one is never replaced."""

    name: str
    heading: str
    body: Html


@dataclass
class Page:
    """What a page shows now. `output`: the filter of the log below it, None for a page without."""

    title: str
    parts: list[Part] = field(default_factory=list)
    output: Fields | None = None
    here: str = ""


Maker = Callable[[Snapshot, "Ask", Fields], Awaitable[Page]]


async def overview(s: Snapshot, ask: Ask, given: Fields) -> Page:
    parts = [
        Part("health", "", sections.health(s)),
        Part("functions", "Functions", sections.functions(s)),
        Part("lanes", "The last two minutes, by container", machine.lanes(s)),
        Part("calls", "Latest calls", sections.recent_calls(s)),
        Part("dead-letters", "Dead letters", sections.dead_letters(s)),
    ]
    return Page("Overview", parts, {}, "/")


async def calls(s: Snapshot, ask: Ask, given: Fields) -> Page:
    fields: dict[str, Any] = {"limit": 300}
    if given.get("state"):
        fields["states"] = [given["state"]]
    for name in ("function", "app"):
        if given.get(name):
            fields[name] = given[name]
    if given.get("since", "").isdecimal():
        fields["since"] = s.now - int(given["since"])
    try:
        rows = (await ask("call.list", **fields)).fields["calls"]
    except InvalidError:
        rows = []
    form = tag(
        "form",
        tag("label", "State ", _select("state", {"": "any", **{x: x for x in STATES}}, given)),
        tag("label", "Since ", _select("since", SPANS, given)),
        tag("label", "Function ", _input("function", given.get("function", ""))),
        tag("label", "App ", _input("app", given.get("app", ""))),
        tag("button", "Filter", type="submit"),
        method="get",
        class_="filter",
    )
    parts = [Part("", "", form), Part("calls", "", sections.calls_table(rows, s.now))]
    return Page("Calls", parts, None, "/-/calls")


async def call(s: Snapshot, ask: Ask, given: Fields) -> Page:
    call_id = given["id"]
    shown = (await ask("call.show", id=call_id)).fields
    parts = [
        Part("facts", "", details.call_facts(s, shown)),
        Part("values", "", details.call_values(shown)),
        Part("failures", "Failures", details.call_failures(shown)),
    ]
    if any(row.get("parent") == call_id for row in s.rows("call.list", "calls")):
        parts.append(Part("children", "Calls that it made", details.children(s, call_id)))
    return Page(f"Call {call_id}", parts, {"call": call_id}, "/-/calls")


async def function(s: Snapshot, ask: Ask, given: Fields) -> Page:
    key = unquote(given["key"])
    name = key.partition("/")[2] or key
    parts = [
        Part("charts", "", details.function_charts(s, key)),
        Part("facts", "", details.function_facts(s, key)),
        Part("workers", "Containers", details.function_containers(s, key)),
        Part("calls", "Calls", details.function_calls(s, key)),
    ]
    if s.of(key, "web.routes", "routes", "key"):
        parts.append(Part("endpoints", "Endpoints", sections.endpoints(s, key)))
    if s.of(key, "schedule.list", "schedules", "key"):
        parts.append(Part("schedules", "Schedule", sections.schedules(s, key)))
    plain = name.partition("~")[0]
    return Page(plain, parts, {"app": key.partition("/")[0], "function": plain}, "/")


async def workers(s: Snapshot, ask: Ask, given: Fields) -> Page:
    parts = [
        Part("workers", "", machine.containers(s)),
        Part("lanes", "The last two minutes", machine.lanes(s)),
    ]
    return Page("Workers", parts, None, "/-/workers")


async def schedules(s: Snapshot, ask: Ask, given: Fields) -> Page:
    return Page("Schedules", [Part("schedules", "", sections.schedules(s))], None, "/-/schedules")


async def endpoints(s: Snapshot, ask: Ask, given: Fields) -> Page:
    return Page("Endpoints", [Part("endpoints", "", sections.endpoints(s))], None, "/-/endpoints")


async def images(s: Snapshot, ask: Ask, given: Fields) -> Page:
    return Page("Images", [Part("builds", "", machine.builds(s))], None, "/-/images")


async def storage(s: Snapshot, ask: Ask, given: Fields) -> Page:
    return Page("Storage", [Part("storage", "", machine.storage(s))], None, "/-/storage")


async def volume(s: Snapshot, ask: Ask, given: Fields) -> Page:
    import json

    name, path = unquote(given["name"]), given.get("path") or "/"
    volume_id = (await ask("volume.open", name=name)).fields["id"]
    try:
        reply = await ask("volume.listdir", id=volume_id, path=path)
    except OSError as error:  # FileNotFoundError and its like are words of the volume
        raise NotFoundError(str(error)) from error
    files = details.volume_files(name, path, json.loads(bytes(reply.payload.data)), s.now)
    return Page(f"Volume {name}", [Part("files", "", files)], None, "/-/storage")


async def logs(s: Snapshot, ask: Ask, given: Fields) -> Page:
    wanted = {n: given[n] for n in ("app", "function", "call", "container") if given.get(n)}
    form = tag(
        "form",
        tag("label", "Search ", _input("search", "", kind="search", id="search")),
        tag("label", "Function ", _input("function", given.get("function", ""))),
        tag("label", "Container ", _input("container", given.get("container", ""))),
        tag("label", "Call ", _input("call", given.get("call", ""))),
        tag("button", "Filter", type="submit"),
        tag("label", _input("pause", "", kind="checkbox", id="pause"), " hold still"),
        tag("label", _input("errors", "", kind="checkbox", id="errors"), " stderr only"),
        method="get",
        class_="filter",
    )
    return Page("Logs", [Part("", "", form)], wanted, "/-/logs")


async def settings(s: Snapshot, ask: Ask, given: Fields) -> Page:
    parts = [
        Part("engine", "", machine.engine(s)),
        Part("settings", "In force", machine.settings(s)),
        Part("isolation", "", machine.isolation(s)),
    ]
    return Page("Settings", parts, None, "/-/settings")


PAGES: dict[str, Maker] = {
    "/": overview,
    "/-/calls": calls,
    "/-/calls/{id}": call,
    "/-/functions/{key:path}": function,
    "/-/workers": workers,
    "/-/schedules": schedules,
    "/-/endpoints": endpoints,
    "/-/images": images,
    "/-/storage": storage,
    "/-/volumes/{name}": volume,
    "/-/logs": logs,
    "/-/settings": settings,
}


async def lines(
    ask: Ask, wanted: Fields, after: int | None, wait: float
) -> tuple[list[dict[str, Any]], int]:
    """Output after event `after` that the filter lets through, and the number to go on from."""
    try:
        reply = await ask("event.list", after=after, timeout=wait, kinds=["log"], **wanted)
    except Error:
        return [], after or 0
    return reply.fields["events"], reply.fields["last"]


def log_line(event: Mapping[str, Any]) -> Html:
    call_id = event.get("call") or ""
    who = link(event["name"], f"/-/calls/{call_id}") if call_id else event["name"]
    return tag(
        "li",
        tag("time", clock(event["at"])),
        tag("span", who, class_="who", title=event.get("container", "")),
        tag("span", event["text"], class_="text"),
        class_=event.get("stream", "stdout"),
    )


def output(events: Iterable[Mapping[str, Any]], tall: bool) -> Html:
    return tag(
        "ol",
        *map(log_line, events),
        id="log",
        class_="log tall" if tall else "log",
        tabindex="0",
        aria_label="Output",
    )


def whole(page: Page, events: Sequence[Mapping[str, Any]], last: int) -> str:
    """A page as the browser first gets it."""
    body = [section(part) for part in page.parts]
    if page.output is not None:
        tall = page.here == "/-/logs"
        heading = "" if tall else "Output"
        body.append(section(Part("", heading, output(events, tall)), "output"))
    links = join(
        tag("a", text, href=url, aria_current="page" if url == page.here else None)
        for url, text in NAVIGATION
    )
    header = (
        '<a class="skip" href="#main">Skip to content</a><header><a class="brand" href="/">'
        '<img src="/-/assets/icon.svg" alt="" width="24" height="24">minimodal</a>'
        f'<nav aria-label="Pages">{links}</nav>'
        '<span id="link" role="status" class="link"></span></header>'
    )
    notice = "<noscript><p class='empty'>Without scripts this page does not move; reload it.</p></noscript>"
    main = tag("main", tag("h1", page.title), join(body), id="main", data_after=str(last))
    return frame(
        page.title,
        '<link rel="icon" href="/-/assets/icon.svg" type="image/svg+xml">'
        '<link rel="stylesheet" href="/-/assets/style.css">'
        '<script type="module" src="/-/assets/live.js"></script>',
        f"{header}{notice}{main}<footer>minimodal {esc(__version__)}</footer>",
    )


def missing(text: str) -> str:
    part = Part("", "", tag("p", text, class_="empty"))
    return whole(Page("Not found", [part]), (), 0)


def frame(title: str, head: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{esc(title)} · minimodal</title>{head}</head><body>{body}</body></html>"
    )


def section(part: Part, kind: str = "") -> Html:
    inner = tag("div", part.body, data_section=part.name or None, class_="body")
    title = [tag("h2", part.heading)] if part.heading else []
    look = "card tiles" if part.name == "health" else f"card {kind}".strip()
    return tag("section", *title, inner, id=part.name or None, class_=look)


def _select(name: str, options: Mapping[str, str], given: Fields) -> Html:
    chosen = given.get(name, "")
    return tag(
        "select",
        *(
            tag("option", text, value=value, selected="selected" if value == chosen else None)
            for value, text in options.items()
        ),
        name=name,
    )


def _input(name: str, text: str, kind: str = "text", id: str | None = None) -> Html:
    known = f' id="{id}"' if id else ""
    return Html(f'<input name="{esc(name)}" type="{kind}" value="{esc(text)}"{known}>')
