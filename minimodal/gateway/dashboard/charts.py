"""Charts as SVG: sparklines, series, one call as a bar, and lanes of containers over time.

Pure; colours are the style sheet's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from .words import Html, clock, esc, seconds

MAX_BARS = 2000  # in all lanes together: what more there is is too small to see
MAX_LANES = 60
MAX_ROWS = 6  # of one container, where its calls overlap
SPAN = 120.0  # seconds that the lanes show
BLUR = 0.1  # seconds that two calls in one row may overlap: less than is seen
WIDTH = 1000
LANE = 20
BAR = 13
LABEL = 210
AXIS = 26

Row = Mapping[str, Any]


def sparkline(values: Sequence[int], failed: Sequence[int], label: str) -> Html:
    """Bars, the newest at the right; failures stand at the foot in their own colour."""
    width, height = 3 * len(values), 26
    top = max([*values, 1])
    bars = []
    for index, (value, bad) in enumerate(zip(values, failed, strict=True)):
        if value:
            tall = max(2.0, value / top * height)
            low = min(tall, max(2.0, bad / top * height)) if bad else 0.0
            bars.append(_rect(index * 3, height - tall, 2, tall - low, "bar"))
            if low:
                bars.append(_rect(index * 3, height - low, 2, low, "bar bad"))
    base = f'<line x1="0" y1="{height - 0.5}" x2="{width}" y2="{height - 0.5}" class="axis"/>'
    return Html(
        f'<svg class="spark" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{esc(label)}">{base}{"".join(bars)}</svg>'
    )


def series(values: Sequence[int], slice_seconds: float, label: str, kind: str) -> Html:
    """One number over time as a stepped area, with its highest and last value in words."""
    width, height = 480, 92
    top = max([*values, 1])
    step = width / len(values)
    points = [f"0,{height}"]
    for index, value in enumerate(values):
        y = round(height - 6 - value / top * (height - 14), 1) if value else height - 1
        points += [f"{index * step:.1f},{y}", f"{(index + 1) * step:.1f},{y}"]
    points.append(f"{width},{height}")
    minutes = len(values) * slice_seconds / 60
    words = f"{label}: now {values[-1]}, at most {max(values)} in {minutes:.0f} minutes"
    return Html(
        f'<figure class="series"><figcaption><b>{esc(label)}</b> <span>now {values[-1]}, '
        f'at most {max(values)}</span></figcaption><svg viewBox="0 0 {width} {height}" '
        f'preserveAspectRatio="none" role="img" aria-label="{esc(words)}">'
        f'<polygon points="{" ".join(points)}" class="area {kind}"/></svg></figure>'
    )


def lanes(containers: Sequence[Row], calls: Sequence[Row], now: float) -> Html:
    """One lane for each container: its start hatched, its calls solid, its idle time a thin line.

    Calls that still wait have a lane above.
    """
    since = now - SPAN
    by_container: dict[str, list[Row]] = {}
    waiting: list[Row] = []
    for call in [c for c in calls if (c.get("finished") or now) >= since][:MAX_BARS]:
        if call["state"] == "queued":
            waiting.append(call)
        elif call.get("container"):
            by_container.setdefault(call["container"], []).append(call)
    if not containers and not waiting:
        return Html('<p class="empty">No container in the last two minutes.</p>')
    parts: list[str] = []
    y = float(AXIS)
    if waiting:
        y = _group(parts, y, "waiting", f"{len(waiting)} calls", None)
        parts += [_bar(call, since, now, y - LANE, "run s-queued") for call in waiting[:MAX_BARS]]
    last = ""
    ordered = sorted(containers, key=lambda c: (c["name"], c["started"]))
    for container in ordered[:MAX_LANES]:
        name = container["name"] if container["name"] != last else ""
        last = container["name"]
        rows = _packed(sorted(by_container.get(container["id"], ()), key=_begun), now) or [[]]
        for index, row in enumerate(rows):
            y = _group(
                parts, y, name if not index else "", "" if index else container["id"], container
            )
            if not index:
                parts.append(_life(container, since, now, y - LANE))
            parts += [_bar(c, since, now, y - LANE, f"run s-{c['state']}") for c in row]
    height = y + 4
    ticks = "".join(_tick(back, height) for back in (120, 90, 60, 30, 0))
    more = len(ordered) - MAX_LANES
    note = f'<p class="dim">and {more} more containers</p>' if more > 0 else ""
    return Html(
        f'<div class="scroll" tabindex="0" role="region" aria-label="Lanes"><svg class="lanes" '
        f'viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Containers and their calls in the '
        f'last two minutes">{_HATCH}{ticks}{"".join(parts)}</svg></div>{note}'
    )


_HATCH = (
    '<defs><pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect width="2.2" height="5" class="hatch"/></pattern></defs>'
)


def legend() -> Html:
    marks = (("cold", "cold start"), ("ok", "ran"), ("running", "runs"), ("error", "failed"))
    items = "".join(f'<li><i class="mark m-{kind}"></i>{text}</li>' for kind, text in marks)
    return Html(f'<ul class="legend">{items}</ul>')


def split(call: Row, now: float) -> Html:
    """One call as a bar: queued, cold start, run; with the three durations in words."""
    begun = call.get("started") or call.get("finished") or now
    end = call.get("finished") or now
    cold = min(call.get("cold") or 0.0, max(0.0, begun - call["created"]))
    queued, ran = max(0.0, begun - call["created"] - cold), max(0.0, end - begun)
    whole = max(queued + cold + ran, 1e-6)
    x, parts = 0.0, []
    for kind, length in (("wait", queued), ("cold", cold), (f"run s-{call['state']}", ran)):
        width = 600 * length / whole
        fill = ' fill="url(#hatch)"' if kind == "cold" else ""
        if width >= 0.1:
            parts.append(
                f'<rect x="{x:.1f}" y="0" width="{width:.1f}" height="16" class="{kind}"{fill}/>'
            )
        x += width
    words = f"queued {seconds(queued)}, cold start {seconds(cold)}, ran {seconds(ran)}"
    return Html(
        f'<svg class="split" viewBox="0 0 600 16" preserveAspectRatio="none" role="img" '
        f'aria-label="{words}">{_HATCH}{"".join(parts)}</svg><ul class="legend">'
        f'<li><i class="mark m-wait"></i>queued {seconds(queued)}</li>'
        f'<li><i class="mark m-cold"></i>cold start {seconds(cold)}</li>'
        f'<li><i class="mark m-{esc(call["state"])}"></i>ran {seconds(ran)}</li></ul>'
    )


def _begun(call: Row) -> float:
    return float(call.get("started") or call["created"])


def _packed(calls: list[Row], now: float) -> list[list[Row]]:
    """Calls in as few rows as they fit without overlap; at most `MAX_ROWS`."""
    rows: list[list[Row]] = []
    ends: list[float] = []
    for call in calls:
        start, end = _begun(call), float(call.get("finished") or now)
        for index, free in enumerate(ends):
            if free <= start + BLUR or index == MAX_ROWS - 1:
                rows[index].append(call)
                ends[index] = end
                break
        else:
            rows.append([call])
            ends.append(end)
    return rows


def _group(parts: list[str], y: float, name: str, what: str, container: Row | None) -> float:
    """The head of a lane; the place of the next one."""
    if name:
        parts.append(f'<line x1="0" y1="{y - 3}" x2="{WIDTH}" y2="{y - 3}" class="grid"/>')
        parts.append(f'<text x="0" y="{y + 11}" class="name">{esc(name[:18])}</text>')
    if what:
        short = what[-8:] if container is not None else what
        state = f": {container['state']}" if container is not None else ""
        parts.append(
            f'<text x="{LABEL - 10}" y="{y + 11}" class="sub"><title>{esc(what + state)}</title>'
            f"{esc(short)}</text>"
        )
    return y + LANE


def _life(container: Row, since: float, now: float, y: float) -> str:
    """A container from its start: hatched until it was ready, then a thin line to its end."""
    end = container.get("ended") or now
    ready = container.get("ready") or end
    left, middle, right = (_x(t, since) for t in (container["started"], ready, end))
    took = seconds(max(0.0, ready - container["started"]))
    cold = (
        f'<g><title>{esc(container["id"])}: cold start {took}</title><rect x="{left}" y="{y}" '
        f'width="{max(middle - left, 1.5):.1f}" height="{BAR}" fill="url(#hatch)" class="cold"/></g>'
        if ready > since
        else ""
    )
    line = y + BAR / 2
    return f'{cold}<line x1="{middle}" y1="{line}" x2="{right}" y2="{line}" class="alive"/>'


def _bar(call: Row, since: float, now: float, y: float, kind: str) -> str:
    start = call["created"] if call["state"] == "queued" else _begun(call)
    end = call.get("finished") or now
    left, right = _x(start, since), _x(end, since)
    words = f"{call['id']} {call['state']}, {seconds(max(0.0, end - start))}, {clock(start)}"
    rect = _rect(left, y, max(1.6, right - left), BAR, kind)
    return f'<a href="/-/calls/{quote(call["id"])}" tabindex="-1"><title>{esc(words)}</title>{rect}</a>'


def _x(at: float, since: float) -> float:
    share = min(1.0, max(0.0, (at - since) / SPAN))
    return round(LABEL + share * (WIDTH - LABEL - 4), 1)


def _tick(back: int, height: float) -> str:
    x = _x(SPAN - back, 0.0)
    text = "now" if back == 0 else f"−{back} s"
    return (
        f'<line x1="{x}" y1="{AXIS - 8}" x2="{x}" y2="{height}" class="grid"/>'
        f'<text x="{x}" y="11" class="tick">{text}</text>'
    )


def _rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="1.5" '
        f'class="{kind}"/>'
    )
