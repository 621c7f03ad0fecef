"""From the engine's events to what a person should read: pure, no terminal in sight.

`apply` takes one event and gives the lines that it is worth; what is under way at the moment is in
`building` and `starting`, for a live display. Progress goes to stderr, the functions' own output to
the stream that it was written to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

SHOWN_ID = 12
_STEP_DONE = re.compile(r"step \d+ of \d+: .*: done in [\d.]+ s")


class Line(NamedTuple):
    """One line to show. `source` is the function that wrote it, or "" for the platform itself."""

    stream: Literal["stdout", "stderr"]
    text: str
    source: str = ""
    mark: Literal["", "done", "failed", "dim"] = ""


@dataclass(slots=True)
class Build:
    """An image that is being built, and the last line that its build printed."""

    since: float
    last: str = ""


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
        return min(times, default=None)

    def _log(self, name: str, at: float, fields: dict[str, Any]) -> list[Line]:
        stream: Literal["stdout", "stderr"] = (
            "stderr" if fields.get("stream") == "stderr" else "stdout"
        )
        text = str(fields.get("text", "")).rstrip("\r")
        return [Line(stream, text.rpartition("\r")[2], name)]  # of a progress bar: its last state

    def _image_build(self, name: str, at: float, fields: dict[str, Any]) -> list[Line]:
        new = name not in self.building
        build = self.building.setdefault(name, Build(at))
        build.last = str(fields.get("text", ""))
        if not self.verbose:
            done = _STEP_DONE.fullmatch(build.last)
            text = f"image {name[:SHOWN_ID]}: {build.last}"
            return [Line("stderr", text, mark="done")] if done else []
        lines = [Line("stderr", f"image {name[:SHOWN_ID]}: {build.last}", mark="dim")]
        return [Line("stderr", f"image {name[:SHOWN_ID]} is being built")] * new + lines

    def _image_built(self, name: str, at: float, fields: dict[str, Any]) -> list[Line]:
        if self.building.pop(name, None) is None:
            return []  # it was there already
        return [
            Line(
                "stderr", f"image {name[:SHOWN_ID]} built{_in(fields.get('seconds'))}", mark="done"
            )
        ]

    def _image_failed(self, name: str, at: float, fields: dict[str, Any]) -> list[Line]:
        self.building.pop(name, None)
        return [Line("stderr", f"image {name[:SHOWN_ID]} failed to build", mark="failed")]

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
        if not fields.get("deployed"):
            return []
        functions = ", ".join(fields.get("functions", ()))
        return [
            Line("stderr", f"deployed {name}{': ' if functions else ''}{functions}", mark="done")
        ]

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
