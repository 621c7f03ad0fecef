"""`minimodal run --json`: what happens, as one JSON object a line on stdout, for programs.

Each has `schema`, `at` (ISO 8601, UTC), `kind` and `name`, and what that kind has beside: `log` and
`output` have `stream` and `text`, `map` has `done`, `failed` and `total`, `run.finished` is the last.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minimodal.progress import Line, MapState, Progress

from .listing import iso

if TYPE_CHECKING:
    from .screen import Screen

SCHEMA = "minimodal.event/1"
MAP_EVERY = 1.0  # seconds between two events about one map


@dataclass(slots=True)
class Events(Progress):
    """A `Progress` whose lines are objects, and for which nothing is ever under way."""

    def apply(self, kind: str, name: str, at: float, fields: dict[str, Any]) -> list[Line]:
        shown = {"schema": SCHEMA, "at": iso(at), "kind": kind, "name": name, **fields}
        return [Line("stdout", json.dumps(shown, default=str))]

    @property
    def pending_since(self) -> float | None:
        return None

    def map_line(self, state: MapState, now: float) -> list[Line]:
        if now - state.said_at < MAP_EVERY:
            return []
        state.said_at = now
        return self._map(state, now, finished=False)

    def end_map(self, state: MapState, now: float) -> list[Line]:
        return self._map(state, now, finished=True)

    def _map(self, state: MapState, now: float, finished: bool) -> list[Line]:
        fields = {
            "done": state.done,
            "failed": state.failed,
            "total": state.total,
            "seconds": round(now - state.since, 3),
            "finished": finished,
        }
        return self.apply("map", state.function, now, fields)


class Lines:
    """sys.stdout or sys.stderr under `--json`: what the script itself prints is an event a line."""

    def __init__(self, screen: Screen, name: str) -> None:
        self._screen = screen
        self._name = name
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._say(line)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """A line that is not ended yet waits for its end."""

    def isatty(self) -> bool:
        return False

    @property
    def encoding(self) -> str:
        return "utf-8"

    def close(self) -> None:
        """The run ends: what was left without a newline is a line too."""
        if self._rest:
            self._say(self._rest)
            self._rest = ""

    def _say(self, text: str) -> None:
        self._screen.publish("output", "", time.time(), stream=self._name, text=text)
