"""Numbers and times as people read them, and HTML that is always escaped. Pure."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def esc(value: Any) -> str:
    return value if isinstance(value, Html) else html.escape(str(value), quote=True)


def join(parts: Iterable[Any]) -> Html:
    return Html("".join(esc(part) for part in parts))


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """`tag("a", "text", href="/")`. A trailing underscore is dropped, others become dashes."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(text), quote=True)}"'
        for key, text in attributes.items()
        if text is not None
    )
    return Html(f"<{name}{given}>{join(children)}</{name}>")


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]], empty: str, label: str) -> Html:
    """A table whose numeric columns (named with a leading #) are set to the right."""
    if not rows:
        return tag("p", empty, class_="empty")
    numeric = [head.startswith("#") for head in heads]
    kinds = [("num" if each else None) for each in numeric]
    head = join(
        tag("th", text.lstrip("#"), scope="col", class_=kind)
        for text, kind in zip(heads, kinds, strict=True)
    )
    body = join(
        tag("tr", join(tag("td", c, class_=k) for c, k in zip(row, kinds, strict=True)))
        for row in rows
    )
    named = tag("thead", tag("tr", head)) if any(heads) else Html("")
    made = tag("table", named, tag("tbody", body), aria_label=label)
    return tag("div", made, class_="scroll", tabindex="0", role="region", aria_label=label)


def seconds(value: float | None) -> str:
    """A duration, with three figures at most."""
    if value is None:
        return "–"
    if value < 0.0995:
        return f"{value * 1000:.1f} ms" if value < 0.00995 else f"{value * 1000:.0f} ms"
    if value < 59.95:
        return f"{value:.2f} s" if value < 9.995 else f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} days"


def ago(at: float | None, now: float) -> Html:
    """How long ago, or how soon. The page's script keeps it true; `unmoved` leaves it out."""
    if at is None:
        return Html("–")
    away = round(now - at)
    words = "now" if away == 0 else f"in {about(-away)}" if away < 0 else f"{about(away)} ago"
    return tag("time", words, datetime=iso(at), title=iso(at), data_at=f"{at:.0f}")


def about(value: float) -> str:
    """A duration in one unit."""
    for unit, size, limit in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if value < limit:
            return f"{value / size:.0f} {unit}"
    return f"{value / 86400:.0f} days"


def unmoved(html_text: str) -> str:
    """The same for two texts that differ only in how long ago things were."""
    return _AGO.sub(r"\1", html_text)


_AGO = re.compile(r"(<time [^>]*data-at=[^>]*>)[^<]*")


def iso(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def count(value: int | float) -> str:
    return f"{value:,.0f}".replace(",", "\u202f")


def nbytes(value: float | None) -> str:
    if value is None:
        return "–"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def badge(text: str, kind: str = "") -> Html:
    return tag("span", text, class_=f"badge {kind}".strip())


def link(text: Any, url: str, kind: str | None = None) -> Html:
    return tag("a", text, href=url, class_=kind)


def call_link(call_id: str | None) -> Html:
    """A call by the end of its id, which is enough to tell calls apart."""
    if not call_id:
        return Html("–")
    return tag("a", call_id, href=f"/-/calls/{quote(call_id)}", class_="id")


def function_link(key: str, text: str | None = None) -> Html:
    name = text or key.partition("/")[2].partition("~")[0] or key
    return tag("a", name, href=f"/-/functions/{quote(key, safe='')}")


def button(text: str, url: str, label: str, *, sure: bool = False) -> Html:
    """Posts to the API. `sure`: it asks again first."""
    ask = "sure?" if sure else None
    kind = "small danger" if sure else "small"
    return tag(
        "button",
        text,
        type="button",
        class_=kind,
        data_post=url,
        data_sure=ask,
        aria_label=label,
    )


def copy(text: str, what: str) -> Html:
    return tag("button", what, type="button", class_="small", data_copy=text)


def state_badge(state: str) -> Html:
    """A state in words and a colour; never the colour alone."""
    return badge(state, f"s-{state}")
