"""After a crash: taking over the unfinished calls of dead engines, each exactly once.

Owns also what that needs and a call's row lacks: the function's spec, and pins on blobs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import anyio.to_thread

from minimodal import codec
from minimodal.errors import Error, NotFoundError
from minimodal.types import CallState, Failure, FunctionSpec, Outcome

from .batch import Connection, Row
from .records import Stored, failure_text, stored_of
from .statements import CALL, HAND_BACK, TAKE, TRACE_LOST, UNFINISHED, owners

if TYPE_CHECKING:
    from .store import Store


class Recovery:
    """`store.recovery`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def take_over(self, is_alive: Callable[[str], bool], *, limit: int = 500) -> list[Stored]:
        """Make unfinished calls of dead engines ours, oldest first; call it until it returns none.

        Each call is taken by exactly one engine. One that was running counts one loss. A call whose
        input cannot be read any more is recorded as lost and not returned.
        """
        now, me = self._store.clock.now(), self._store.engine

        def operation(connection: Connection) -> list[Row]:
            for engine in owners(connection):
                if engine == me or is_alive(engine):
                    continue
                found = connection.execute(UNFINISHED, (engine, limit)).fetchall()
                trace = failure_text(Failure("CallLost", f"the engine {engine} died"))
                connection.executemany(TRACE_LOST, [(now, trace, seq) for (seq,) in found])
                connection.executemany(TAKE, [(me, seq) for (seq,) in found])
                return [connection.execute(CALL, seq).fetchone() for seq in found]
            return []

        taken: list[Stored] = []
        while not taken:
            rows = await self._store.database.write(operation)
            if not rows:
                break
            for row in rows:
                try:
                    taken.append(await anyio.to_thread.run_sync(stored_of, row, self._store.blobs))
                except Error as error:
                    failure = Failure("CallLost", f"its input cannot be read: {error}")
                    await self._store.record(
                        row[0], row[10], Outcome(CallState.LOST, failure=failure)
                    )
        return taken

    async def put_spec(self, spec: FunctionSpec) -> None:
        """Remember what a call's function is, for the engine that takes the call over."""
        values = (spec.key, codec.to_json(spec), self._store.clock.now())
        statement = "INSERT OR REPLACE INTO specs (key, spec, created) VALUES (?, ?, ?)"
        await self._store.database.write(lambda connection: connection.execute(statement, values))

    async def spec(self, key: str) -> FunctionSpec:
        """Raises NotFoundError; InvalidError if a newer minimodal wrote it."""
        statement = "SELECT spec FROM specs WHERE key = ?"
        row = await self._store.database.read(lambda c: c.execute(statement, (key,)).fetchone())
        if row is None:
            raise NotFoundError(f"no function {key} is recorded")
        return codec.from_json(FunctionSpec, row[0])

    async def pin(self, digests: Collection[str]) -> None:
        """Keep these blobs for as long as this engine lives, though no row mentions them."""
        values = [(self._store.engine, digest) for digest in digests]
        statement = "INSERT OR IGNORE INTO pins (engine, digest) VALUES (?, ?)"
        await self._store.database.write(lambda c: c.executemany(statement, values))

    async def hand_back(self, call_ids: Collection[str]) -> None:
        """Give unfinished calls up without counting a loss: another engine, or the next, runs them."""
        values = [(call_id, self._store.engine) for call_id in call_ids]
        await self._store.database.write(
            lambda connection: connection.executemany(HAND_BACK, values)
        )
