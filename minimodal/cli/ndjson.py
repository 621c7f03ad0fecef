"""`minimodal run --json`: what happens, as one JSON object a line on stdout, for programs.

Each has `schema`, `at` (ISO 8601, UTC), `kind` and `name`, and what that kind has beside: `log` and
`output` have `stream` and `text`, `map` has `done`, `failed` and `total`, `run.finished` is the last.
"""

from __future__ import annotations

import codecs
import io
import json
import threading
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


class Lines(io.TextIOBase):
    """sys.stdout or sys.stderr under `--json`: what the script itself prints is an event a line."""

    encoding = "utf-8"

    def __init__(self, screen: Screen, name: str) -> None:
        self._screen = screen
        self._name = name
        self._rest = ""
        self._lock = threading.Lock()
        self.buffer = _Buffer(self)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            for line in lines:
                self._say(line)
        return len(text)

    def close(self) -> None:
        """The run ends: what was left without a newline is a line too."""
        with self._lock:
            rest, self._rest = self._rest, ""
            if rest:
                self._say(rest)

    def _say(self, text: str) -> None:
        self._screen.publish("output", "", time.time(), stream=self._name, text=text)


class _Buffer(io.RawIOBase):
    """`sys.stdout.buffer` under `--json`: bytes are shown as text."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._lines.write(self._decoder.decode(bytes(data)))
        return len(data)
