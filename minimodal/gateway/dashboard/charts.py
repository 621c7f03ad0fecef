"""Charts as SVG: sparklines, and lanes of calls over time. Pure; colours are the style sheet's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .words import Html, esc, seconds

MAX_BARS = 1500  # in all lanes together: what more there is is too small to see
SPAN = 120.0  # seconds that the lanes show
WIDTH = 1000
LANE = 22
BAR = 14
LABEL = 190
AXIS = 24


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


def lanes(calls: Sequence[dict[str, Any]], now: float) -> Html:
    """One row for each function, more where its calls overlap; waiting is hatched, running is solid."""
    since = now - SPAN
    shown = [c for c in calls if (c.get("finished") or now) >= since][:MAX_BARS]
    if not shown:
        return Html('<p class="empty">No call in the last two minutes.</p>')
    groups: dict[str, list[dict[str, Any]]] = {}
    for call in sorted(shown, key=lambda c: float(c["created"])):
        groups.setdefault(call["function"].partition("/")[2] or call["function"], []).append(call)
    parts: list[str] = []
    y = AXIS
    for name, members in sorted(groups.items()):
        rows = _packed(members, now)
        parts.append(
            f'<text x="0" y="{y + 15}" class="name">{esc(name[:26])}</text>'
            f'<line x1="0" y1="{y - 2.5}" x2="{WIDTH}" y2="{y - 2.5}" class="grid"/>'
        )
        for row in rows:
            parts += [_bar(call, since, now, y) for call in row]
            y += LANE
    height = y + 4
    ticks = "".join(_tick(back, height) for back in (120, 90, 60, 30, 0))
    return Html(
        f'<svg class="lanes" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="Calls of the last two minutes by function">{_HATCH}{ticks}{"".join(parts)}</svg>'
    )


_HATCH = (
    '<defs><pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect width="2" height="5" class="hatch"/></pattern></defs>'
)


def split(call: dict[str, Any], now: float) -> Html:
    """One call as a bar: waited, ran."""
    begun = call.get("started") or call.get("finished") or now
    end = call.get("finished") or now
    waited, ran = max(0.0, begun - call["created"]), max(0.0, end - begun)
    whole = max(waited + ran, 1e-6)
    at = round(600 * waited / whole, 1)
    words = f"waited {seconds(waited)}, ran {seconds(ran)}"
    return Html(
        f'<svg class="split" viewBox="0 0 600 20" role="img" aria-label="{words}">{_HATCH}'
        f'<rect x="0" y="2" width="{at}" height="16" fill="url(#hatch)" class="wait"/>'
        f"{_rect(at, 2, 600 - at, 16, 'run s-' + call['state'])}</svg>"
    )


def _packed(calls: list[dict[str, Any]], now: float) -> list[list[dict[str, Any]]]:
    """Calls in as few rows as they fit without overlap; at most eight."""
    rows: list[list[dict[str, Any]]] = []
    ends: list[float] = []
    for call in calls:
        start, end = float(call["created"]), float(call.get("finished") or now)
        for index, free in enumerate(ends):
            if free <= start or index == 7:
                rows[index].append(call)
                ends[index] = max(end, start + 0.3)
                break
        else:
            rows.append([call])
            ends.append(max(end, start + 0.3))
    return rows


def _bar(call: dict[str, Any], since: float, now: float, y: float) -> str:
    end = call.get("finished") or now
    begun = call.get("started") or end
    left, middle, right = (_x(t, since) for t in (call["created"], begun, end))
    words = f"{call['id']} {call['state']}, {seconds(max(0.0, end - begun))}"
    waiting = (
        f'<rect x="{left}" y="{y}" width="{max(0.0, middle - left):.1f}" height="{BAR}" '
        'fill="url(#hatch)" class="wait"/>'
        if middle - left > 1
        else ""
    )
    run = _rect(middle, y, max(2.0, right - middle), BAR, f"run s-{call['state']}")
    return f'<a href="/-/calls/{esc(call["id"])}"><title>{esc(words)}</title>{waiting}{run}</a>'


def _x(at: float, since: float) -> float:
    share = min(1.0, max(0.0, (at - since) / SPAN))
    return round(LABEL + share * (WIDTH - LABEL - 4), 1)


def _tick(back: int, height: float) -> str:
    x = _x(SPAN - back, 0.0)
    text = "now" if back == 0 else f"−{back} s"
    return (
        f'<line x1="{x}" y1="{AXIS - 6}" x2="{x}" y2="{height}" class="grid"/>'
        f'<text x="{x}" y="12" class="tick">{text}</text>'
    )


def _rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="1.5" '
        f'class="{kind}"/>'
    )
