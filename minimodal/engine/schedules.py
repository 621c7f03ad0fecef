"""Schedules' state: a tick and the call that it submits are one transaction, over all engines."""

from __future__ import annotations

from typing import NamedTuple

from minimodal.clock import Clock

from .batch import Connection, Row
from .database import Database
from .statements import insert_call

_TICK = """
    INSERT INTO schedules (key, last_tick, last_call) VALUES (:key, :tick, :call)
    ON CONFLICT (key) DO UPDATE SET last_tick = :tick, last_call = coalesce(:call, last_call)
    WHERE last_tick < :tick
"""


class ScheduleState(NamedTuple):
    last: float  # the last tick that was dealt with
    last_call: str | None  # id of the last call that a tick made
    paused: bool


class Schedules:
    """`store.schedules`. Ticks are wall-clock times as the schedule's own calendar gives them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def tick(self, key: str, tick: float, row: Row | None) -> bool:
        """Record a tick and its call (`store.row_of(call)`; None: the policy skips this one).

        False: this tick, or a later one, was recorded before, by this engine or another; then no
        call was accepted.
        """
        values = {"key": key, "tick": tick, "call": row[0] if row else None}

        def operation(connection: Connection) -> bool:
            won = connection.execute(_TICK, values).rowcount == 1
            if won and row:
                insert_call(connection, row)
            return won

        return await self._database.write(operation)

    async def last(self, key: str) -> tuple[float, str | None] | None:
        """The last tick and the id of the last call it made (for "no overlap"), or None."""
        query = "SELECT last_tick, last_call FROM schedules WHERE key = ?"
        row = await self._database.read(lambda c: c.execute(query, (key,)).fetchone())
        return (row[0], row[1]) if row else None

    async def state(self, key: str) -> ScheduleState | None:
        """What is remembered of a schedule, or None before `start_from`."""
        query = "SELECT last_tick, last_call, paused FROM schedules WHERE key = ?"
        row = await self._database.read(lambda c: c.execute(query, (key,)).fetchone())
        return ScheduleState(row[0], row[1], bool(row[2])) if row else None

    async def set_back(self, key: str, now: float) -> None:
        """The wall clock was corrected: ticks after `now` have not been."""
        query = "UPDATE schedules SET last_tick = ? WHERE key = ? AND last_tick > ?"
        await self._database.write(lambda c: c.execute(query, (now, key, now)))

    async def pause(self, key: str) -> None:
        query = (
            "INSERT INTO schedules (key, last_tick, paused) VALUES (?, ?, 1) "
            "ON CONFLICT (key) DO UPDATE SET paused = 1"
        )
        now = self._clock.now()
        await self._database.write(lambda c: c.execute(query, (key, now)), full=True)

    async def resume(self, key: str, now: float) -> None:
        """Its next tick is the first after `now`. Nothing happens to one that is not paused."""
        query = "UPDATE schedules SET paused = 0, last_tick = ? WHERE key = ? AND paused = 1"
        await self._database.write(lambda c: c.execute(query, (now, key)), full=True)

    async def start_from(self, key: str, now: float) -> None:
        """Remember when a schedule was first seen, so that its first tick lies after it."""
        query = "INSERT OR IGNORE INTO schedules (key, last_tick) VALUES (?, ?)"
        await self._database.write(lambda c: c.execute(query, (key, now)))

    async def forget(self, key: str) -> None:
        """The schedule is gone; one of that name later starts anew."""
        query = "DELETE FROM schedules WHERE key = ?"
        await self._database.write(lambda c: c.execute(query, (key,)))
