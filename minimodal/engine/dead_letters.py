"""Dead letters: calls that failed for good, with their inputs and attempts, until retried or purged."""

from __future__ import annotations

from collections.abc import Sequence

from minimodal.clock import Clock
from minimodal.errors import NotFoundError
from minimodal.types import new_id

from .batch import Connection, Row
from .blobs import Blobs
from .database import Database
from .records import (
    CALL_COLUMNS,
    INFO_COLUMNS,
    CallInfo,
    DeadLetter,
    Stored,
    attempt_of,
    info_of,
    stored_of,
    unpack,
)

_ATTEMPTS = """
    SELECT attempt, lost, started, ended, failure FROM attempts WHERE seq = ? ORDER BY attempt
"""

# The retry is a call of its own: an outcome, once recorded, is never changed.
_AGAIN = """
    INSERT INTO calls (
        id, retry_of, engine, created, state, attempt, errors, losses, function, app, method, user,
        priority, parent, depth, stream, durable, grp, idx, blobs, input
    )
    SELECT ?, id, ?, ?, 'queued', 0, 0, 0, function, app, method, user,
        priority, parent, depth, stream, durable, grp, idx, blobs, input
    FROM calls WHERE seq = ?
"""

_LEAVE = "UPDATE calls SET dead = 0, input = NULL WHERE seq = ?"


class DeadLetters:
    """`store.dead_letters`. `ids` and `function` select together; neither selects all."""

    def __init__(self, database: Database, blobs: Blobs, engine: str, clock: Clock) -> None:
        self._database = database
        self._blobs = blobs
        self._engine = engine
        self._clock = clock

    async def find(self, *, function: str | None = None, limit: int = 100) -> list[CallInfo]:
        """The newest first, without values."""
        where, values = _selection(None, function)
        query = f"SELECT {INFO_COLUMNS} FROM calls WHERE {where} ORDER BY seq DESC LIMIT ?"
        rows = await self._database.read(lambda c: c.execute(query, (*values, limit)).fetchall())
        return [info_of(row) for row in rows]

    async def count(self, *, function: str | None = None) -> int:
        where, values = _selection(None, function)
        query = f"SELECT count(*) FROM calls WHERE {where}"
        row = await self._database.read(lambda c: c.execute(query, values).fetchone())
        return int(row[0])

    async def show(self, call_id: str) -> DeadLetter:
        """Everything about one. Raises NotFoundError."""

        def query(connection: Connection) -> DeadLetter:
            text = f"SELECT {INFO_COLUMNS}, seq, input FROM calls WHERE id = ? AND dead = 1"
            row = connection.execute(text, (call_id,)).fetchone()
            if row is None:
                raise NotFoundError(f"no dead letter {call_id}")
            attempts = tuple(map(attempt_of, connection.execute(_ATTEMPTS, (row[-2],))))
            return DeadLetter(info_of(row), unpack(row[-1], self._blobs), attempts)

        return await self._database.read(query)

    async def retry(
        self,
        *,
        ids: Sequence[str] | None = None,
        function: str | None = None,
        limit: int = 500,
    ) -> list[Stored]:
        """Turn dead letters, oldest first, into new calls of this engine, each once; not yet running.

        Call it until it returns none. (The caller must be a live engine, or one that ends now: what
        it leaves is taken over by the next.)
        """
        where, values = _selection(ids, function)
        chosen = f"SELECT seq FROM calls WHERE {where} ORDER BY seq LIMIT ?"
        now = self._clock.now()

        def operation(connection: Connection) -> list[Row]:
            rows: list[Row] = []
            for (seq,) in connection.execute(chosen, (*values, limit)).fetchall():
                again = new_id("fc")
                connection.execute(_AGAIN, (again, self._engine, now, seq))
                connection.execute(_LEAVE, (seq,))
                text = f"SELECT {CALL_COLUMNS} FROM calls WHERE id = ?"
                rows.append(connection.execute(text, (again,)).fetchone())
            return rows

        rows = await self._database.write(operation)
        return await self._database.read(lambda _: [stored_of(row, self._blobs) for row in rows])

    async def purge(
        self,
        *,
        ids: Sequence[str] | None = None,
        function: str | None = None,
        before: float | None = None,
    ) -> int:
        """Drop the inputs of dead letters, finished before that time; outcomes stay readable."""
        where, values = _selection(ids, function)
        if before is not None:
            where, values = f"{where} AND finished < ?", (*values, before)
        text = f"UPDATE calls SET dead = 0, input = NULL WHERE {where}"
        return await self._database.write(lambda c: c.execute(text, values).rowcount)


def _selection(ids: Sequence[str] | None, function: str | None) -> tuple[str, Row]:
    where = "dead = 1"
    values: Row = ()
    if function is not None:
        where, values = f"{where} AND function = ?", (function,)
    if ids is not None:
        marks = ", ".join("?" * len(ids))
        where, values = f"{where} AND id IN ({marks})", (*values, *ids)
    return where, values
