"""History: listings of calls for people, and forgetting: retention of results, rows and blobs."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import anyio.to_thread

from minimodal.clock import Clock
from minimodal.errors import NotFoundError
from minimodal.types import CallState

from .batch import Connection, Row
from .blobs import GRACE, Blobs
from .database import Database
from .records import INFO_COLUMNS, Attempt, CallInfo, attempt_of, info_of

_CHUNK = 500  # rows that one transaction forgets, so that others get their turn

_DIGEST = re.compile(r"\b[0-9a-f]{64}\b")


class Retention(NamedTuple):
    """How long what is finished is kept; seconds."""

    results: float = 7 * 86_400.0  # then reading one raises OutputExpiredError
    rows: float = 30 * 86_400.0  # then the call was never heard of
    dead_letters: float = 30 * 86_400.0
    attached: float = 86_400.0  # rows of calls that were never durable


class History:
    """`store.history`."""

    def __init__(self, database: Database, blobs: Blobs, clock: Clock) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock

    async def find(
        self,
        *,
        states: Sequence[CallState] = (),
        function: str | None = None,
        app: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 100,
    ) -> list[CallInfo]:
        """Calls by the time of their acceptance, the newest first, without values.

        `function` is a key, or the name behind its slash.

        To page on, give the last one's `created` as `until`; calls of that instant come again.
        """
        conditions = {
            "function = ?": function if function and "/" in function else None,
            "substr(function, instr(function, '/') + 1) = ?": (
                function if function and "/" not in function else None
            ),
            "app = ?": app,
            "created >= ?": since,
            "created <= ?": until,
        }
        where = ["1", *(text for text, value in conditions.items() if value is not None)]
        values: list[object] = [value for value in conditions.values() if value is not None]
        if states:
            where.append(f"state IN ({', '.join('?' * len(states))})")
            values += [state.value for state in states]
        query = (
            f"SELECT {INFO_COLUMNS} FROM calls WHERE {' AND '.join(where)} "
            "ORDER BY created DESC, seq DESC LIMIT ?"
        )
        rows = await self._database.read(lambda c: c.execute(query, (*values, limit)).fetchall())
        return [info_of(row) for row in rows]

    async def show(self, call_id: str) -> tuple[CallInfo, tuple[Attempt, ...]]:
        """One call and its failed attempts. Raises NotFoundError."""

        def query(connection: Connection) -> tuple[Row, list[Row]]:
            text = f"SELECT {INFO_COLUMNS}, seq FROM calls WHERE id = ?"
            row = connection.execute(text, (call_id,)).fetchone()
            if row is None:
                raise NotFoundError(f"no call {call_id}")
            text = (
                "SELECT attempt, lost, started, ended, failure FROM attempts WHERE seq = ? "
                "ORDER BY attempt"
            )
            return row, connection.execute(text, (row[-1],)).fetchall()

        row, attempts = await self._database.read(query)
        return info_of(row), tuple(map(attempt_of, attempts))

    async def tree(self, roots: Sequence[str], limit: int) -> list[CallInfo]:
        """Calls, and all that they called, and so on, in the order of their acceptance."""
        query = (
            "WITH RECURSIVE tree(call) AS (SELECT value FROM json_each(?) UNION "
            "SELECT calls.id FROM calls JOIN tree ON calls.parent = tree.call) "
            f"SELECT {INFO_COLUMNS} FROM calls WHERE id IN (SELECT call FROM tree) "
            "ORDER BY seq LIMIT ?"
        )
        values = json.dumps(list(roots)), limit
        rows = await self._database.read(lambda c: c.execute(query, values).fetchall())
        return [info_of(row) for row in rows]

    async def counts(self) -> dict[tuple[str, CallState], int]:
        """How many calls of each function are in each state."""
        query = "SELECT function, state, count(*) FROM calls GROUP BY function, state"
        rows = await self._database.read(lambda c: c.execute(query).fetchall())
        return {(function, CallState(state)): count for function, state, count in rows}

    # --- forgetting -------------------------------------------------------------------------------

    async def expire(self, retention: Retention | None = None) -> int:
        """Forget what is old enough, a few rows at a time. Returns how many calls were forgotten."""
        kept, now = retention or Retention(), self._clock.now()
        values = {
            "results": now - kept.results,
            "rows": now - kept.rows,
            "dead": now - kept.dead_letters,
            "attached": now - kept.attached,
            "chunk": _CHUNK,
        }
        while await self._database.write(lambda c: c.execute(_EXPIRE, values).rowcount):
            pass
        forgotten = 0
        while count := await self._database.write(lambda c: _forget(c, values)):
            forgotten += count
        await self._database.write(lambda c: c.execute(_UNUSED_SPECS, values))
        return forgotten

    async def collect_blobs(self, is_alive: Callable[[str], bool], grace: float = GRACE) -> int:
        """Remove blobs that nothing mentions, and temp files of dead engines."""

        def unpin(connection: Connection) -> None:
            for (engine,) in connection.execute("SELECT DISTINCT engine FROM pins").fetchall():
                if not is_alive(engine):
                    connection.execute("DELETE FROM pins WHERE engine = ?", (engine,))

        await self._database.write(unpin)
        await anyio.to_thread.run_sync(self._blobs.sweep, is_alive)
        referenced = functools.partial(self._database.blocking, _mentioned)
        return await anyio.to_thread.run_sync(self._blobs.collect, referenced, grace)


# Waiting dead letters are kept for their own time; their results with them.
_EXPIRE = """
    UPDATE calls SET expired = 1, result = NULL, failure = NULL, blobs = NULL WHERE seq IN (
        SELECT seq FROM calls
        WHERE created < :results AND finished < :results AND dead = 0 AND expired = 0 LIMIT :chunk
    )
"""

_FORGOTTEN = """
    SELECT seq FROM calls
    WHERE created < max(:rows, :dead, :attached)
        AND finished < CASE WHEN dead THEN :dead WHEN durable THEN :rows ELSE :attached END
    LIMIT :chunk
"""

_UNUSED_SPECS = """
    DELETE FROM specs WHERE created < :rows
        AND key NOT IN (SELECT function FROM calls WHERE finished IS NULL OR dead = 1)
"""


def _forget(connection: Connection, values: dict[str, float]) -> int:
    seqs = connection.execute(_FORGOTTEN, values).fetchall()
    connection.executemany("DELETE FROM attempts WHERE seq = ?", seqs)
    connection.executemany("DELETE FROM calls WHERE seq = ?", seqs)
    return len(seqs)


def _mentioned(connection: Connection) -> set[str]:
    """Every digest that a row mentions: of payloads, and anywhere in the text of specs."""
    found: set[str] = set()
    for query in (
        "SELECT blobs FROM calls WHERE blobs IS NOT NULL",
        "SELECT digest FROM pins",
        "SELECT spec FROM specs",
        "SELECT specs FROM deployments",
    ):
        for (text,) in connection.execute(query):
            found.update(_DIGEST.findall(text))
    return found
