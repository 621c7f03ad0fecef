"""Schedules' state: a tick and the call that it submits are one transaction, over all engines."""

from __future__ import annotations

from minimodal.clock import Clock

from .batch import Connection, Row
from .database import Database
from .statements import insert_call

_TICK = """
    INSERT INTO schedules (key, last_tick, last_call) VALUES (:key, :tick, :call)
    ON CONFLICT (key) DO UPDATE SET last_tick = :tick, last_call = coalesce(:call, last_call)
    WHERE last_tick < :tick
"""


class Schedules:
    """`store.schedules`. Ticks are wall-clock times as the schedule's own calendar gives them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def tick(self, key: str, tick: float, row: Row | None, *, full: bool = False) -> bool:
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

        return await self._database.write(operation, full=full)

    async def last(self, key: str) -> tuple[float, str | None] | None:
        """The last tick and the id of the last call it made (for "no overlap"), or None."""
        query = "SELECT last_tick, last_call FROM schedules WHERE key = ?"
        row = await self._database.read(lambda c: c.execute(query, (key,)).fetchone())
        return (row[0], row[1]) if row else None

    async def start_from(self, key: str, now: float) -> None:
        """Remember when a schedule was first seen, so that its first tick lies after it."""
        query = "INSERT OR IGNORE INTO schedules (key, last_tick) VALUES (?, ?)"
        await self._database.write(lambda c: c.execute(query, (key, now)))

    async def forget(self, key: str) -> None:
        """The schedule is gone; one of that name later starts anew."""
        query = "DELETE FROM schedules WHERE key = ?"
        await self._database.write(lambda c: c.execute(query, (key,)))
