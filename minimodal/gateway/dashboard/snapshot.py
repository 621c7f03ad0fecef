"""What a page shows, asked of the engine at one time. One snapshot serves all who look."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from minimodal.errors import Error

if TYPE_CHECKING:
    from minimodal.gateway.seam import Ask

FRESH = 0.8  # seconds that one snapshot is good for
CALLS = 500
SPAN = 120.0  # seconds of the lanes
SINCE = object()  # stands for the time of `SPAN` ago


Statuses = Mapping[tuple[str, str], Mapping[int, int]]
"""How many requests to (app, function) were answered with each HTTP status."""


@dataclass(frozen=True)
class Snapshot:
    """Answers by operation. What this engine cannot say is empty."""

    now: float
    started: float
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    statuses: Statuses = field(default_factory=dict)

    def rows(self, op: str, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.answers.get(op, {}).get(name, [])
        return found

    def of(self, key: str, op: str, name: str, field: str = "function") -> list[dict[str, Any]]:
        """Rows of one function."""
        return [row for row in self.rows(op, name) if row.get(field) == key]

    @property
    def engine(self) -> dict[str, Any]:
        return self.answers.get("engine.info", {})


QUESTIONS: dict[str, dict[str, Any]] = {
    "engine.info": {},
    "function.list": {},
    "function.tally": {},
    "container.list": {"since": SINCE},
    "call.list": {"limit": CALLS},
    "web.routes": {},
    "schedule.list": {},
    "dlq.list": {"limit": 20},
    "image.builds": {},
    "volume.list": {"sizes": True},
    "engine.config": {},
    "secret.list": {},
    "dict.list": {},
    "queue.list": {},
}


class Snapshots:
    """Takes one when somebody looks and the last is old."""

    def __init__(self, ask: Ask, statuses: Statuses) -> None:
        self._ask = ask
        self._statuses = statuses
        self._started = time.time()
        self._last: Snapshot | None = None
        self._lock = anyio.Lock()

    async def get(self) -> Snapshot:
        async with self._lock:
            last = self._last
            if last is None or time.time() - last.now >= FRESH:
                last = self._last = await self._take()
            return last

    async def _take(self) -> Snapshot:
        answers: dict[str, dict[str, Any]] = {}

        async def one(op: str, fields: dict[str, Any]) -> None:
            try:
                given = {k: time.time() - SPAN if v is SINCE else v for k, v in fields.items()}
                reply = await self._ask(op, **given)
            except (Error, OSError):
                return  # an engine without that operation, or a home that cannot be read
            answers[op] = dict(reply.fields)

        async with anyio.create_task_group() as tasks:
            for op, fields in QUESTIONS.items():
                tasks.start_soon(one, op, fields)
        return Snapshot(time.time(), self._started, answers, self._statuses)
