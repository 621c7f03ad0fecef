"""From the engine's events to what a person should read: pure, no terminal in sight.

`apply` takes one event and gives the lines that it is worth; what is under way at the moment is in
`building`, `starting` and `maps`, for a live display. Progress goes to stderr, the functions' own
output to the stream that it was written to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

SHOWN_ID = 12
QUICK = 0.3  # seconds: a build that ends sooner is not worth a line, nor is a map worth a bar
MAP_LINE_EVERY = 10.0  # seconds between two plain lines about a map that goes on
_STEP_DONE = re.compile(r"step \d+ of \d+: .*: done in ([\d.]+) s")


class Line(NamedTuple):
    """One line to show. `source` is the function that wrote it, or "" for the platform itself."""

    stream: Literal["stdout", "stderr"]
    text: str
    source: str = ""
    mark: Literal["", "done", "failed", "dim", "wake"] = ""  # wake: only draw the live display


@dataclass(slots=True)
class Build:
    """An image that is being built, and the last line that its build printed."""

    since: float
    last: str = ""
    held: list[Line] = field(default_factory=list)  # not shown yet: it may be over at once


@dataclass(slots=True, eq=False)
class MapState:
    """How far one map is. `total` is None where its inputs are not counted yet."""

    function: str
    total: int | None
    since: float
    done: int = 0
    failed: int = 0
    running: int = 0
    said_at: float = 0.0
    first_at: float | None = None  # when the first outcome came: before it containers started

    def count(self, done: int, failed: int, now: float) -> None:
        """So many inputs have an outcome now."""
        if self.first_at is None and done:
            self.first_at = now
        self.done, self.failed = done, failed

    def words(self, now: float) -> str:
        """`120 of 500 done, 3 failed, 4 running, 61/s, 6.2 s left`: what is known of it."""
        of = f" of {self.total:,}" if self.total is not None else ""
        parts = [f"{self.done:,}{of} done"]
        parts += [f"{self.failed:,} failed"] * bool(self.failed)
        parts += [f"{self.running:,} running"] * bool(self.running)
        seconds = now - (now if self.first_at is None else self.first_at)
        if seconds >= QUICK:
            rate = self.done / seconds
            parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s")
            if self.total and self.done < self.total:
                parts.append(f"{shown_seconds((self.total - self.done) / rate)} left")
        return ", ".join(parts)


@dataclass(slots=True)
class Progress:
    """What is under way. `verbose` is what plain output has instead of a live display."""

    quiet: bool = False
    verbose: bool = False
    building: dict[str, Build] = field(default_factory=dict)
    starting: dict[str, dict[str, float]] = field(
        default_factory=dict
    )  # function: container: since
    started: set[str] = field(default_factory=set)  # functions that had a container that was ready
    maps: list[MapState] = field(default_factory=list)
    urls: dict[str, str] = field(default_factory=dict)  # of endpoints, as they were said

    def apply(self, kind: str, name: str, at: float, fields: dict[str, Any]) -> list[Line]:
        """The lines that an event is worth; an event of an unknown kind is worth none."""
        handler = getattr(self, "_" + kind.replace(".", "_"), None)
        lines: list[Line] = handler(name, at, fields) if handler else []
        if self.quiet:
            lines = [line for line in lines if line.source]
        return lines

    @property
    def pending_since(self) -> float | None:
        """When the oldest thing that is under way began; None when nothing is."""
        times = [build.since for build in self.building.values()]
        times += [since for containers in self.starting.values() for since in containers.values()]
        times += [each.since for each in self.maps]
        return min(times, default=None)

    def _log(self, name: str, at: float, fields: dict[str, Any]) -> list[Line]:
        stream: Literal["stdout", "stderr"] = (
            "stderr" if fields.get("stream") == "stderr" else "stdout"
        )
        text = str(fields.get("text", "")).rstrip("\r")
        return [Line(stream, text.rpartition("\r")[2], name)]  # of a progress bar: its last state

    def begin_map(self, function: str, total: int | None, now: float) -> MapState:
        """A map that began. Its owner changes it, and gives it to `end_map`."""
        state = MapState(function, total, now, said_at=now)
        self.maps.append(state)
        return state

    def map_line(self, state: MapState, now: float) -> list[Line]:
        """What plain output says of a map that goes on: from time to time a line."""
        if not self.verbose or self.quiet or now - state.said_at < MAP_LINE_EVERY:
            return []
        state.said_at = now
        return [Line("stderr", f"{state.function}: {state.words(now)}", mark="dim")]

    def end_map(self, state: MapState, now: float) -> list[Line]:
        """The line that it is worth at its end: none if it was quick or short, and nothing failed."""
        if state in self.maps:
            self.maps.remove(state)
        state.running = 0
        took = now - state.since
        if self.quiet or ((took < 1.0 or state.done < 10) and not state.failed):
            return []
        rate = f", {state.done / took:,.0f}/s" if took >= QUICK and state.done >= 10 * took else ""
        failed = f", {state.failed:,} failed" if state.failed else ""
        text = f"{state.function}: {state.done:,} done{failed} in {shown_seconds(took)}{rate}"
        return [Line("stderr", text, mark="failed" if state.failed else "done")]

    def _image_build(self, name: str, at: float, fields: dict[str, Any]) -> list[Line]:
        new = name not in self.building
        build = self.building.setdefault(name, Build(at))
        build.last = str(fields.get("text", ""))
        if not self.verbose:
            done = _STEP_DONE.fullmatch(build.last)
            if done is None or float(done[1]) < QUICK:
                return []
            return [Line("stderr", f"image {name[:SHOWN_ID]}: {build.last}", mark="done")]
        head = [Line("stderr", f"image {name[:SHOWN_ID]} is being built")] * new
        build.held += [*head, Line("stderr", f"image {name[:SHOWN_ID]}: {build.last}", mark="dim")]
        if at - build.since < QUICK:
            return []
        lines, build.held = build.held, []
        return lines

    def _image_built(self, name: str, at: float, fields: dict[str, Any]) -> list[Line]:
        build = self.building.pop(name, None)
        seconds = fields.get("seconds")
        if build is None or (isinstance(seconds, int | float) and seconds < QUICK):
            return []  # it was there already
        text = f"image {name[:SHOWN_ID]} built{_in(seconds)}"
        return [*build.held, Line("stderr", text, mark="done")]

    def _image_failed(self, name: str, at: float, fields: dict[str, Any]) -> list[Line]:
        build = self.building.pop(name, None)
        held = build.held if build else []
        return [*held, Line("stderr", f"image {name[:SHOWN_ID]} failed to build", mark="failed")]

    def _gateway_open(self, name: str, at: float, fields: dict[str, Any]) -> list[Line]:
        return [Line("stderr", f"dashboard and web endpoints at {name}", mark="done")]

    def _container_starting(self, name: str, at: float, fields: dict[str, Any]) -> list[Line]:
        self.starting.setdefault(name, {})[str(fields.get("container"))] = at
        return []

    def _container_ready(self, name: str, at: float, fields: dict[str, Any]) -> list[Line]:
        self._forget(name, fields)
        if name in self.started:
            return []
        self.started.add(name)
        return [
            Line(
                "stderr", f"{name}: first container ready{_in(fields.get('seconds'))}", mark="done"
            )
        ]

    def _container_stopped(self, name: str, at: float, fields: dict[str, Any]) -> list[Line]:
        if not self._forget(name, fields) or fields.get("asked"):
            return []
        reason = fields.get("reason") or "no reason was given"
        text = f"{name}: a container stopped before it was ready: {reason}"
        return [Line("stderr", text, mark="failed")]

    def _forget(self, name: str, fields: dict[str, Any]) -> bool:
        containers = self.starting.get(name, {})
        known = containers.pop(str(fields.get("container")), None) is not None
        if not containers:
            self.starting.pop(name, None)
        return known

    def _app_opened(self, name: str, at: float, fields: dict[str, Any]) -> list[Line]:
        endpoints: dict[str, str] = fields.get("endpoints", {})
        new = {what: url for what, url in endpoints.items() if self.urls.get(what) != url}
        self.urls |= new  # of an app that is opened again they are known
        lines = [
            Line("stderr", f"{what} answers at {url}", mark="done") for what, url in new.items()
        ]
        if not fields.get("deployed"):
            return lines
        functions = ", ".join(fields.get("functions", ()))
        text = f"deployed {name}{': ' if functions else ''}{functions}"
        return [Line("stderr", text, mark="done"), *lines]

    def _app_closed(self, name: str, at: float, fields: dict[str, Any]) -> list[Line]:
        return [Line("stderr", f"stopped {name}", mark="done")] if fields.get("deployed") else []

    def _notice(self, name: str, at: float, fields: dict[str, Any]) -> list[Line]:
        return [Line("stderr", ": ".join(filter(None, [name, str(fields.get("text", ""))])))]


def _in(seconds: Any) -> str:
    return f" in {shown_seconds(seconds)}" if isinstance(seconds, int | float) else ""


def shown_seconds(seconds: float) -> str:
    """A duration for people: 43 ms, 1.2 s, 2 min 5 s."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"
