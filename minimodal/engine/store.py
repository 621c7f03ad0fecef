"""The store: what survives the engine. Durable calls from their acceptance to their outcome.

Owns the life of a call's row; dead letters, history, deployments and schedules are beside it, over
the same database. It decides nothing: the engine's memory decides, this is its log. Each row names
the engine that owns it, and each change says which attempt it speaks of, so that an engine taken for
dead, or a late answer, changes nothing.

All writes are committed when they return, with full durability on the disk too; many in one
transaction.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Literal

import anyio.to_thread

from minimodal.clock import Clock, SystemClock
from minimodal.engine_lock import live_engines
from minimodal.errors import NotFoundError, OutputExpiredError
from minimodal.home import Home
from minimodal.types import EMPTY, Call, CallState, Failure, Outcome, Payload

from .batch import Connection, Row
from .blobs import Blobs
from .database import Database, open_database
from .dead_letters import DeadLetters
from .deployments import Deployments
from .history import History
from .quotas import Quotas
from .records import app_of, failure_of, failure_text, in_row, is_small, pack, unpack
from .recovery import Recovery
from .schedules import Schedules
from .statements import (
    ACCEPT,
    FAIL,
    FINISH,
    FORGET,
    INPUT,
    KINDS,
    NOTE,
    OUTCOME,
    SMALL_VALUES,
    START,
    insert_call,
)

Durability = Literal["normal", "full"]

MAX_NOTES = 10_000  # queued notes of attached calls; more are dropped

_DEAD = (CallState.ERROR, CallState.TIMEOUT, CallState.LOST)


class Store:
    """Made by `open_store`; `engine` is the id of the engine that uses it."""

    def __init__(
        self, database: Database, blobs: Blobs, engine: str, clock: Clock, durability: Durability
    ) -> None:
        self.database = database
        self.blobs = blobs
        self.engine = engine
        self.clock = clock
        self._full = durability == "full"
        self.recovery = Recovery(self)
        self.dead_letters = DeadLetters(database, blobs, engine, clock)
        self.history = History(database, blobs, clock)
        self.deployments = Deployments(database, clock)
        self.schedules = Schedules(database, clock)
        self.quotas = Quotas(database)

    async def watch(self) -> None:
        """Raise StateError once the database cannot be relied on; run it beside the services."""
        await self.database.watch()

    # --- a call's life ----------------------------------------------------------------------------

    async def accept(self, calls: Sequence[Call]) -> frozenset[str]:
        """Record the calls: once this returns they outlive the engine. All of them, or none.

        Returns the ids that were recorded before (a caller that asked twice): not to be run again.
        Cancelled, it accepts nothing. Give at most some thousands at once: they are one transaction.
        """
        rows = [await self.row_of(call) for call in calls]

        def undo(new: list[bool]) -> Callable[[Connection], object]:
            gone = [(row[0],) for row, is_new in zip(rows, new, strict=True) if is_new]
            return lambda connection: connection.executemany(FORGET, gone)

        new = await self.database.write_rows(ACCEPT, rows, full=self._full, undo=undo)
        if all(new):
            return frozenset()
        return frozenset(row[0] for row, is_new in zip(rows, new, strict=True) if not is_new)

    async def attempt_started(self, call_id: str, attempt: int) -> bool:
        """Record that attempt number `attempt` (from 1) begins; before it is sent to a container.

        So a call that kills its engine is counted. False: the call is finished, or not ours.
        """
        row = (call_id, self.engine, attempt, self.clock.now())
        return (await self.database.write_rows(START, [row]))[0]

    async def attempt_failed(
        self,
        call_id: str,
        attempt: int,
        failure: Failure,
        *,
        lost: bool,
        retry_at: float | None = None,
    ) -> bool:
        """Record a failed attempt after which the call is queued again, until `retry_at` at least.

        `lost`: with its container, not by the user's code. False: late, or not ours.
        """
        now, text = self.clock.now(), failure_text(failure)
        row = (call_id, self.engine, attempt, now, not lost, lost, retry_at, text)
        return (await self.database.write_rows(FAIL, [row]))[0]

    async def record(
        self,
        call_id: str,
        attempt: int | None,
        outcome: Outcome,
        *,
        lost: bool = False,
    ) -> bool:
        """Record the outcome, once and for ever. False: it was late, and must not be shown.

        `attempt` None is for a cancel by somebody who does not own the call. What failed for good
        becomes a dead letter, which keeps the input; a success drops it.
        """
        assert outcome.state is CallState.CANCELLED if attempt is None else outcome.state.finished
        payload = outcome.failure.payload if outcome.failure else outcome.value
        result, digests = (None, ()) if payload is None else await self._packed(payload)
        dead = outcome.state in _DEAD
        row = (
            call_id,
            self.engine,
            attempt,
            self.clock.now(),
            dead and not lost,
            dead and lost,
            dead,
            outcome.state.value,
            failure_text(outcome.failure),
            " ".join(digests) or None,
            result,
            attempt is None,
        )
        return (await self.database.write_rows(FINISH, [row], full=self._full))[0]

    async def outcome(self, call_id: str) -> Outcome | None:
        """How the call ended; None while it has not. Raises NotFoundError, OutputExpiredError."""

        def query(connection: Connection) -> Outcome | None:
            row = connection.execute(OUTCOME, (call_id,)).fetchone()
            if row is None:
                raise NotFoundError(f"no call {call_id}")
            state, attempts, expired, failure, result = row
            if expired:
                raise OutputExpiredError(
                    f"the result of {call_id} was kept for its time and is gone"
                )
            if not CallState(state).finished:
                return None
            value = None if result is None else unpack(result, self.blobs)
            failed = failure_of(failure, value)
            return Outcome(CallState(state), None if failed else value, failed, attempts)

        return await self.database.read(query)

    async def input(self, call_id: str) -> Payload:
        """What an unfinished call was given. Raises NotFoundError, StateError."""

        def query(connection: Connection) -> Payload:
            row = connection.execute(INPUT, (call_id,)).fetchone()
            if row is None or row[0] is None:
                raise NotFoundError(f"no input of {call_id} is on record")
            return unpack(row[0], self.blobs)

        return await self.database.read(query)

    async def small(self, call_id: str) -> tuple[Payload | None, Payload | None]:
        """The input and the result of a call, for people: each EMPTY if it is not kept, None if it is
        in a file, and without its buffers. Reads no file. Raises NotFoundError, StateError."""

        def query(connection: Connection) -> tuple[Payload | None, Payload | None]:
            row = connection.execute(SMALL_VALUES, (call_id,)).fetchone()
            if row is None:
                raise NotFoundError(f"no call {call_id}")
            given, result = (EMPTY if each is None else in_row(each) for each in row)
            return given, result

        return await self.database.read(query)

    def note(self, call: Call, outcome: Outcome, *, created: float, started: float | None) -> bool:
        """Remember a finished attached call for `minimodal calls`, some time soon, without values.

        Nobody waits for it, and under overload it is dropped (False): history is no promise.
        """
        base = self._row(call, None, (), created)
        failure, attempts = failure_text(outcome.failure), outcome.attempts
        values = (outcome.state.value, attempts, started, self.clock.now(), failure, call.id)

        def operation(connection: Connection) -> None:
            if insert_call(connection, base):
                connection.execute(NOTE, values)

        return self.database.write_soon(operation, limit=MAX_NOTES)

    # --- rows -------------------------------------------------------------------------------------

    async def row_of(self, call: Call) -> Row:
        """The row that `insert_call` takes; its large parts are in blobs already."""
        packed, digests = await self._packed(call.payload)
        return self._row(call, packed, digests, self.clock.now())

    def _row(self, call: Call, packed: bytes | None, digests: Sequence[str], now: float) -> Row:
        return (
            call.id,
            call.function,
            app_of(call.function),
            call.method,
            call.user,
            call.priority,
            call.parent,
            call.depth,
            call.stream,
            call.durable,
            None,  # grp and idx: of earlier versions
            0,
            self.engine,
            now,
            " ".join(digests) or None,
            packed,
        )

    async def _packed(self, payload: Payload) -> tuple[bytes, tuple[str, ...]]:
        if is_small(payload):
            return pack(payload, self.blobs)
        return await anyio.to_thread.run_sync(pack, payload, self.blobs)


@contextlib.asynccontextmanager
async def open_store(
    home: Home,
    engine: str,
    *,
    clock: Clock | None = None,
    durability: Durability = "normal",
    wait: float = 10.0,
) -> AsyncIterator[Store]:
    """Open the store of a home for the engine of that id. Raises StateError.

    `wait`: seconds to wait for another program that has the database locked.
    """
    live = await anyio.to_thread.run_sync(live_engines, home)
    others = [f"{other.role} (pid {other.pid})" for other in live if other.id != engine]
    async with open_database(home.database, wait=wait, others=others, kinds=KINDS) as database:
        blobs = Blobs(home.blobs, engine)
        yield Store(database, blobs, engine, clock or SystemClock(), durability)
