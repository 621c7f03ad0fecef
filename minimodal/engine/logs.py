"""Output of functions: bytes become lines, lines become events, within bounds.

A line is cut at `MAX_LINE` characters and says so; when a container writes faster than `RATE` lines
a second for long, lines are dropped, counted, and the count is said once.
"""

from __future__ import annotations

import asyncio

from .events import EventLog
from .masking import NOTHING, Mask

MAX_LINE = 32 * 1024
RATE = 20_000  # lines per second and container, over the burst
BURST = 20_000
SAY_AFTER = 1.0  # seconds from the first dropped byte to the line that counts them


class LogLines:
    """Joins the pieces that arrive into lines, for each (container, call, stream)."""

    def __init__(self, events: EventLog, loop: asyncio.AbstractEventLoop) -> None:
        self._events = events
        self._loop = loop
        self._partial: dict[tuple[str, str, str], str] = {}
        self._allowance: dict[str, tuple[float, float]] = {}  # container: tokens, when
        self._dropped: dict[str, int] = {}
        self._masks: dict[str, Mask] = {}  # by container
        self._apps: dict[str, tuple[str, str]] = {}  # container: id and name of its app

    def hide(self, container: str, mask: Mask) -> None:
        """Hide these values in what the container writes from now on."""
        if mask:
            self._masks[container] = mask

    def begin(self, container: str, app: str, app_name: str) -> None:
        """A container starts: its lines will name its app."""
        self._apps[container] = app, app_name

    def add(self, function: str, container: str, call: str, stream: str, text: str) -> None:
        key = (container, call, stream)
        text = self._partial.pop(key, "") + text
        whole, newline, rest = text.rpartition("\n")
        if len(rest) > MAX_LINE:
            # A value that goes on in the next piece must not be cut: its beginning waits there.
            mask = self._masks.get(container, NOTHING)
            keep = mask.span - 1 if mask else 0
            rest = mask.text(rest)
            cut = max(len(rest) - keep, 0)
            whole, newline, rest = whole + newline + rest[:cut], "\n", rest[cut:]
        if rest:
            self._partial[key] = rest
        if not newline:
            return
        count = whole.count("\n") + 1
        allowed = self._allow(container, count)
        lines = whole.split("\n", allowed)  # no further: of a flood most is dropped
        dropped = lines.pop() if allowed < count else ""
        for line in lines:
            self._publish(function, container, call, stream, line)
        nbytes = len(dropped) - dropped.count("\n")
        self._count_dropped(function, container, nbytes, allowed > 0)

    def end_call(self, function: str, container: str, call: str) -> None:
        """The call has ended: what it left without a newline is a line too."""
        if self._partial:
            for stream in ("stdout", "stderr"):
                rest = self._partial.pop((container, call, stream), "")
                if rest:
                    self._publish(function, container, call, stream, rest)

    def end(self, function: str, container: str) -> None:
        """The container is gone: what it left without a newline is a line too."""
        for key in [k for k in self._partial if k[0] == container]:
            self._publish(function, container, key[1], key[2], self._partial.pop(key))
        self._count_dropped(function, container, 0, True)
        self._allowance.pop(container, None)
        self._masks.pop(container, None)
        self._apps.pop(container, None)

    def _publish(self, function: str, container: str, call: str, stream: str, line: str) -> None:
        line = self._masks.get(container, NOTHING).text(line)
        if len(line) > MAX_LINE:
            line = f"{line[:MAX_LINE]}… [{len(line) - MAX_LINE} characters cut]"
        app, app_name = self._apps.get(container, ("", ""))
        self._events.publish(
            "log",
            function,
            text=line,
            stream=stream,
            call=call,
            container=container,
            app=app,
            app_name=app_name,
        )

    def _allow(self, container: str, wanted: int) -> int:
        now = self._loop.time()
        tokens, then = self._allowance.get(container, (float(BURST), now))
        tokens = min(float(BURST), tokens + (now - then) * RATE)
        allowed = min(wanted, int(tokens))
        self._allowance[container] = (tokens - allowed, now)
        return allowed

    def _count_dropped(self, function: str, container: str, nbytes: int, say: bool) -> None:
        known = self._dropped.pop(container, 0)
        if not known and nbytes:  # if it falls silent then, nothing else would say it
            self._loop.call_later(SAY_AFTER, self._count_dropped, function, container, 0, True)
        total = known + nbytes
        if total and say and not nbytes:
            text = f"[{total} bytes of output dropped: it was written faster than it can be read]"
            self._publish(function, container, "", "stderr", text)
        elif total:
            self._dropped[container] = total
